#pragma once

#include <string>

namespace octet::cli {

/// "octet 0.1.0 (oneDNN 3.7.2, avx2)".
std::string VersionText();

}  // namespace octet::cli
