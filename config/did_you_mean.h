// "did you mean": the known name nearest to one that was mistyped.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace octet {

/// Number of single-character insertions, deletions, substitutions and swaps of neighbours that
/// turn `a` into `b`. Source: Damerau-Levenshtein, optimal string alignment.
int EditDistance(std::string_view a, std::string_view b);

/// Returns the candidate nearest to `name`, or an empty string when none is within a third of its
/// length (two edits for short names).
std::string DidYouMean(std::string_view name, std::span<const std::string> candidates);

}  // namespace octet
