// What one worker keeps between runs: the arena, and for every plan that it ran the pointers into it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/engine.h"
#include "engine/ops/step.h"

namespace octet {

/// One plan's run-time state in one workspace: a pointer per step input and output, made once.
struct Frame {
  uint64_t plan = 0;                               ///< ExecutablePlan's id.
  std::vector<void*> pointers;                     ///< Arguments of all steps, one after the other.
  std::vector<std::unique_ptr<StepState>> states;  ///< One per step, null where it needs none.
  std::byte* arena = nullptr;                      ///< That the pointers were made for.
  uint64_t last_use = 0;
};

struct Workspace::Impl {
  std::shared_ptr<std::byte[]> arena;
  size_t arena_bytes = 0;
  uint64_t uses = 0;
  std::vector<std::unique_ptr<Frame>> frames;
  std::vector<Workspace> others;  ///< Of the team's other threads, for plans that run in slices.

  /// The arena, grown to at least `bytes`; growing moves it.
  std::byte* Reserve(size_t bytes);
  /// The frame of a plan, null when this workspace has not run it.
  Frame* Find(uint64_t plan);
  /// Adds a frame; the one used longest ago makes room for it.
  Frame& Add(std::unique_ptr<Frame> frame);
};

}  // namespace octet
