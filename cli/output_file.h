// Files that a verb writes at its end: asked about before its work.
#pragma once

#include <span>
#include <string>

#include "absl/status/status.h"

namespace octet::cli {

/// Says before the work whether the file can be written at its end. Errors: INVALID_ARGUMENT naming it for a folder, for a device
/// or a pipe, whose place the file would take, for a file among `others`, what is read or written besides (empty ones are none),
/// which it would replace, and for an .npz or .npy file in a folder among them, which would be read as samples from then on; else
/// as PendingFile.
absl::Status CheckOutputFile(const std::string& path, std::span<const std::string> others);

}  // namespace octet::cli
