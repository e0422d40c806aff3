// NumPy's .npz archives: where calibration sets, evaluation sets and captured requests come from.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"

#include "engine/tensor/tensor.h"

namespace octet {

/// Arrays of an archive by name, without ".npy".
using NpzArrays = std::map<std::string, Tensor>;

/// Reads every array of an .npz archive (stored or deflated members, .npy versions 1 to 3, little-endian bool,
/// integer and float element types, strings of a fixed length, which are taken without the zeros at their end and where
/// they are Unicode as UTF-8; C order).
/// Errors: NOT_FOUND (no file); INVALID_ARGUMENT naming file and member for anything malformed, big-endian, in Fortran
/// order or of another type, or for a header that claims more bytes than the file can hold, before memory is taken for them;
/// RESOURCE_EXHAUSTED when an array exceeds `max_bytes`.
/// Source: numpy.lib.format.
absl::StatusOr<NpzArrays> ReadNpz(const std::string& path, uint64_t max_bytes = uint64_t{8} << 30);

/// Reads one array of its own, an .npy file. Errors: as ReadNpz.
absl::StatusOr<Tensor> ReadNpy(const std::string& path, uint64_t max_bytes = uint64_t{8} << 30);

}  // namespace octet
