#include "tests/support/source_folder.h"

#include <cstdlib>

namespace octet {

// Here alone: objects that hold no path of the checkout can be taken out of a compiler cache that checkouts share.
std::filesystem::path SourceFolder() { return OCTET_SOURCE_DIR; }

std::optional<std::filesystem::path> SharedFolder(std::string_view part) {
  const char* set = std::getenv("OCTET_SHARED");
  const std::filesystem::path root =
      set != nullptr ? std::filesystem::path(set) : SourceFolder().parent_path() / "shared";
  std::filesystem::path folder = root / part;
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) return std::nullopt;
  return folder;
}

}  // namespace octet
