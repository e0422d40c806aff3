// Where the files of the project and of its tests lie.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

namespace octet {

/// The root of the checkout.
std::filesystem::path SourceFolder();

/// The folder of `part` ("models", "data") of the real models and data, which some tests use where they are present and
/// which are no part of the project: in $OCTET_SHARED, else in ../shared beside the checkout. nullopt where absent: the
/// test then says so with GTEST_SKIP.
std::optional<std::filesystem::path> SharedFolder(std::string_view part);

}  // namespace octet
