// By what the folder of a server's captures is known wherever it is mounted.
#pragma once

#include <string>

namespace octet {

/// The 32 digits that the folder's file .octet-captures holds; empty when there are none.
std::string CaptureMark(const std::string& folder);

/// Gives a folder its mark, by chance, unless it has one. Where it cannot be written there is none.
void MarkCaptureFolder(const std::string& folder);

}  // namespace octet
