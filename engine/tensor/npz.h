// NumPy's .npz archives: where calibration sets, evaluation sets and captured requests come from.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

#include "engine/tensor/spool.h"
#include "engine/tensor/tensor.h"

namespace octet {

/// Arrays of an archive by name, without ".npy".
using NpzArrays = std::map<std::string, Tensor>;

/// Of arrays that are read into memory, unless somebody says otherwise.
inline constexpr uint64_t kMostInMemory = uint64_t{8} << 30;

/// Reads every array of an .npz archive (stored or deflated members, .npy versions 1 to 3, little-endian bool,
/// integer and float element types, strings of a fixed length, which are taken without the zeros at their end and where
/// they are Unicode as UTF-8; C order).
/// Errors: NOT_FOUND (no file); INVALID_ARGUMENT naming file and member for anything malformed, big-endian, in Fortran
/// order or of another type, or for a header that claims more bytes than the file can hold, before memory is taken for them;
/// RESOURCE_EXHAUSTED when the arrays together exceed `max_bytes` of memory.
/// Source: numpy.lib.format.
absl::StatusOr<NpzArrays> ReadNpz(const std::string& path, uint64_t max_bytes = kMostInMemory);

/// An array whose elements are read where they are needed, in the type that the file has. Thread-safe.
class StoredArray {
 public:
  virtual ~StoredArray() = default;
  const TensorSpec& spec() const { return spec_; }
  /// Copies bytes [offset, offset + size) of the elements; strings point at characters that are the array's.
  /// Errors: INVALID_ARGUMENT naming the file and the byte when it has become shorter or cannot be read. Requires: bytes of the array.
  virtual absl::Status Read(uint64_t offset, uint64_t size, void* to) const = 0;

 protected:
  explicit StoredArray(TensorSpec spec) : spec_(std::move(spec)) {}

 private:
  TensorSpec spec_;
};

/// By name, without ".npy".
using StoredArrays = std::map<std::string, std::shared_ptr<const StoredArray>>;

/// Where the elements of opened arrays lie.
struct Placement {
  /// What cannot be read in place is copied to: members that are compressed.
  std::shared_ptr<Spool> spool;
  /// Members that are not compressed, and .npy files, are read in the file, which stays open; else they are copied as well, and it
  /// is closed.
  bool in_place = true;
};

/// Opens every array of an .npz archive. Each is passed over once, so that a damaged one is refused here, and what is read later
/// needs no more memory than it fills; strings lie in memory, since their characters need a place. Forms and errors: as ReadNpz, but
/// its limit of bytes is that of each array of strings; as Spool::Append.
absl::StatusOr<StoredArrays> OpenNpz(const std::string& path, const Placement& placement);

/// Opens an .npy file. Errors: as OpenNpz.
absl::StatusOr<std::shared_ptr<const StoredArray>> OpenNpy(const std::string& path,
                                                           const Placement& placement);

}  // namespace octet
