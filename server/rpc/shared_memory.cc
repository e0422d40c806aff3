#include "server/rpc/shared_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <system_error>
#include <utility>

#include <sys/mman.h>
#include <sys/stat.h>

#include "engine/tensor/status.h"
#include "engine/tensor/utf8.h"
#include "server/rpc/infer_options.h"

namespace octet {
namespace {

constexpr std::string_view kPrefix = "shared_memory_";
constexpr std::string_view kRegion = "shared_memory_region";
constexpr std::string_view kBytes = "shared_memory_byte_size";
constexpr std::string_view kOffset = "shared_memory_offset";

/// The object's size; nullopt when it cannot be told.
std::optional<uint64_t> SizeOfObject(int fd) {
  struct stat status = {};
  if (fstat(fd, &status) != 0 || status.st_size < 0) return std::nullopt;
  return static_cast<uint64_t>(status.st_size);
}

bool Fits(uint64_t offset, uint64_t bytes, uint64_t size) {
  return offset <= size && bytes <= size - offset;
}

absl::Status CheckKey(const std::string& key) {
  const std::string_view name = std::string_view(key).substr(key.starts_with('/') ? 1 : 0);
  const bool valid = !name.empty() && name.size() <= NAME_MAX && name != "." && name != ".." &&
                     name.find('/') == std::string_view::npos &&
                     name.find('\0') == std::string_view::npos && IsUtf8(name);
  if (valid) return absl::OkStatus();
  return InvalidArgument("shared memory key, expected /name without further slashes, got \"{}\"",
                         key);
}

absl::Status OpenError(const std::string& key, int error) {
  const std::string reason = std::generic_category().message(error);
  const absl::StatusCode code = error == ENOENT   ? absl::StatusCode::kNotFound
                                : error == EACCES ? absl::StatusCode::kPermissionDenied
                                : error == EMFILE || error == ENFILE || error == ENOMEM
                                    ? absl::StatusCode::kResourceExhausted
                                    : absl::StatusCode::kInvalidArgument;
  return MakeError(code, "cannot open shared memory \"{}\": {}", key, reason);
}

absl::StatusOr<SharedSlice> ReadSlice(const TensorParameters& parameters,
                                      const SharedMemory* memory) {
  if (memory == nullptr) {
    return absl::UnimplementedError(
        "shared memory is not supported here: listen.shared_memory is off");
  }
  SharedSlice slice;
  std::optional<uint64_t> bytes;
  for (const auto& [name, parameter] : parameters) {
    if (!name.starts_with(kPrefix)) continue;
    if (name == kRegion) {
      if (!parameter.has_string_param()) {
        return InvalidArgument("parameter \"{}\": expected text", kRegion);
      }
      OCTET_ASSIGN_OR_RETURN(slice.region, memory->Find(parameter.string_param()));
    } else if (name == kBytes) {
      OCTET_ASSIGN_OR_RETURN(bytes, WholeNumber(name, parameter));
    } else if (name == kOffset) {
      OCTET_ASSIGN_OR_RETURN(slice.offset, WholeNumber(name, parameter));
    } else {
      return InvalidArgument("parameter \"{}\" is not known here", name);
    }
  }
  if (slice.region == nullptr || !bytes) {
    return InvalidArgument("parameter \"{}\" is missing", bytes ? kRegion : kBytes);
  }
  slice.bytes = *bytes;
  if (!Fits(slice.offset, slice.bytes, slice.region->bytes())) {
    return InvalidArgument("shared memory \"{}\" has {} bytes, got offset {} and byte_size {}",
                           slice.region->name(), slice.region->bytes(), slice.offset, slice.bytes);
  }
  return slice;
}

}  // namespace

SharedRegion::~SharedRegion() { close(fd_); }

absl::Status SharedRegion::Failure(std::string_view verb, int error) const {
  if (error == ENOSPC || error == ENOMEM) {
    return MakeError(absl::StatusCode::kResourceExhausted, "cannot {} shared memory \"{}\": {}",
                     verb, name_, std::generic_category().message(error));
  }
  if (error != 0) {
    return InvalidArgument("cannot {} shared memory \"{}\": {}", verb, name_,
                           std::generic_category().message(error));
  }
  return InvalidArgument(
      "cannot {} shared memory \"{}\": the object \"{}\" has become smaller than {} bytes", verb,
      name_, key_, offset_ + bytes_);
}

absl::Status SharedRegion::Read(uint64_t offset, uint64_t bytes, std::string& out) const {
  int error = 0;
  out.resize_and_overwrite(bytes, [&](char* data, size_t size) {
    size_t done = 0;
    while (done < size) {
      const ssize_t got =
          pread(fd_, data + done, size - done, static_cast<off_t>(offset_ + offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) error = errno;
      if (got <= 0) break;
      done += static_cast<size_t>(got);
    }
    return done;
  });
  return out.size() == bytes ? absl::OkStatus() : Failure("read", error);
}

absl::Status SharedRegion::Write(uint64_t offset, std::string_view data) const {
  // Writing behind its end would make the object grow again.
  const std::optional<uint64_t> size = SizeOfObject(fd_);
  if (!size || !Fits(offset_ + offset, data.size(), *size)) return Failure("write", 0);
  uint64_t at = offset_ + offset;
  while (!data.empty()) {
    const ssize_t put = pwrite(fd_, data.data(), data.size(), static_cast<off_t>(at));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return Failure("write", put < 0 ? errno : 0);
    data.remove_prefix(static_cast<size_t>(put));
    at += static_cast<uint64_t>(put);
  }
  return absl::OkStatus();
}

absl::Status SharedMemory::Register(const std::string& name, const std::string& key,
                                    uint64_t offset, uint64_t bytes) {
  if (name.empty()) return absl::InvalidArgumentError("a shared memory region needs a name");
  if (name.size() > kMaxNameBytes) {
    return InvalidArgument("shared memory region: name, expected at most {} bytes, got {}",
                           kMaxNameBytes, name.size());
  }
  // HTTP takes any bytes, and one such region would hide all from who asks over gRPC.
  if (!IsUtf8(name)) {
    return InvalidArgument("shared memory region: name, expected UTF-8, got \"{}\"", name);
  }
  OCTET_RETURN_IF_ERROR(CheckKey(key));
  if (bytes == 0) {
    return InvalidArgument("shared memory \"{}\": byte_size, expected at least 1, got 0", name);
  }
  const int fd = shm_open(key.c_str(), O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) return OpenError(key, errno);
  auto region = std::make_shared<const SharedRegion>(fd, name, key, offset, bytes);
  const uint64_t size = SizeOfObject(fd).value_or(0);
  if (!Fits(offset, bytes, size)) {
    return InvalidArgument(
        "shared memory \"{}\": the object \"{}\" has {} bytes, got offset {} and byte_size {}",
        name, key, size, offset, bytes);
  }
  absl::MutexLock lock(&mutex_);
  if (regions_.contains(name)) {
    return MakeError(absl::StatusCode::kAlreadyExists, "shared memory \"{}\" is registered already",
                     name);
  }
  if (regions_.size() >= kMaxRegions) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     "too many regions of shared memory are registered, at most {}", kMaxRegions);
  }
  regions_.emplace(name, std::move(region));
  return absl::OkStatus();
}

void SharedMemory::Unregister(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  if (name.empty()) {
    regions_.clear();
  } else {
    regions_.erase(name);
  }
}

absl::StatusOr<std::shared_ptr<const SharedRegion>> SharedMemory::Find(
    const std::string& name) const {
  absl::MutexLock lock(&mutex_);
  const auto found = regions_.find(name);
  if (found != regions_.end()) return found->second;
  return MakeError(absl::StatusCode::kNotFound, "shared memory \"{}\" is not registered", name);
}

std::vector<std::shared_ptr<const SharedRegion>> SharedMemory::All() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<const SharedRegion>> all;
  for (const auto& [name, region] : regions_) all.push_back(region);
  return all;
}

bool NamesSharedMemory(const TensorParameters& parameters) {
  for (const auto& [name, unused] : parameters) {
    if (name.starts_with(kPrefix)) return true;
  }
  return false;
}

absl::StatusOr<SharedSlice> FindSharedSlice(std::string_view tensor,
                                            const TensorParameters& parameters,
                                            const SharedMemory* memory) {
  absl::StatusOr<SharedSlice> slice = ReadSlice(parameters, memory);
  if (!slice.ok()) return Annotate(slice.status(), tensor);
  return slice;
}

}  // namespace octet
