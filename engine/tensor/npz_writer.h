// Writes NumPy's .npz archives: what ReadNpz, and NumPy, read.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include <sys/types.h>

#include "engine/tensor/tensor.h"

namespace octet {

/// One array of an archive.
struct NpzArray {
  std::string name;  ///< Without ".npy".
  /// Its elements, one piece behind the other along axis 0: of one element type and rank, and equal extents behind axis 0; a
  /// scalar is one piece. A piece without data is written as zeros, or empty strings.
  std::vector<ConstTensorView> pieces;
};

/// True for the element types that NumPy has: all but BF16.
bool NpzHolds(DType dtype);

/// Writes the arrays to `path`, members stored, elements taken from where they are: nothing of them is copied but the few
/// bytes that the archive's writer buffers. Strings get the length of the longest, zeros behind the shorter ones; zeros at
/// the end of an element are lost when it is read. The file is whole or not there at all, with
/// the permissions `mode` (less the umask), and may be written by several at once: as PendingFile. Errors: as there, naming the file;
/// INVALID_ARGUMENT naming the array too, for two of one name.
/// Requires: at least one piece per array, NpzHolds(dtype).
/// Source: numpy.lib.format, version 1.0.
absl::Status WriteNpz(const std::string& path, std::span<const NpzArray> arrays,
                      mode_t mode = 0600);

}  // namespace octet
