#include "engine/plan/workspace.h"

#include <algorithm>

namespace octet {
namespace {

// More plans than a worker meets between two sweeps of its models; a frame is a few kilobytes.
constexpr size_t kMaxFrames = 256;

}  // namespace

Workspace::Workspace() : impl_(std::make_unique<Impl>()) {}
Workspace::~Workspace() = default;
Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;

size_t Workspace::bytes() const {
  size_t bytes = impl_->arena_bytes;
  for (const Workspace& other : impl_->others) bytes += other.bytes();
  return bytes;
}

std::byte* Workspace::Impl::Reserve(size_t bytes) {
  if (bytes > arena_bytes || !arena) {
    arena.reset();
    arena = AllocateAligned(bytes);
    arena_bytes = bytes;
  }
  return arena.get();
}

Frame* Workspace::Impl::Find(uint64_t plan) {
  for (const std::unique_ptr<Frame>& frame : frames) {
    if (frame->plan != plan) continue;
    frame->last_use = ++uses;
    return frame.get();
  }
  return nullptr;
}

Frame& Workspace::Impl::Add(std::unique_ptr<Frame> frame) {
  frame->last_use = ++uses;
  if (frames.size() < kMaxFrames) return *frames.emplace_back(std::move(frame));
  const auto oldest = std::ranges::min_element(
      frames, {}, [](const std::unique_ptr<Frame>& f) { return f->last_use; });
  *oldest = std::move(frame);
  return **oldest;
}

}  // namespace octet
