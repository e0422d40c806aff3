// Real models and data, which some tests use where they are present. They are no part of the
// project.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace octet {

/// The folder of `part` ("models", "data") of the shared files: $OCTET_SHARED, else ../shared
/// beside the checkout. nullopt where absent: the test then says so with GTEST_SKIP.
inline std::optional<std::filesystem::path> SharedFolder(std::string_view part) {
  const char* set = std::getenv("OCTET_SHARED");
  const std::filesystem::path root =
      set != nullptr ? std::filesystem::path(set)
                     : std::filesystem::path(OCTET_SOURCE_DIR).parent_path() / "shared";
  std::filesystem::path folder = root / part;
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) return std::nullopt;
  return folder;
}

}  // namespace octet
