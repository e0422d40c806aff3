#pragma once

namespace octet::cli {

/// Gives the pages of the program and its libraries back that were read until now and never written: what the dynamic linker
/// read to relocate, and the code of constructors. They are a third of the memory at the peak of a small model. A page that
/// is used again is mapped again from the system's cache of the file. Under a debugger, whose breakpoints are in such pages, it does
/// nothing. Thread-safe. madvise(2), MADV_DONTNEED.
void GiveBackStartPages();

}  // namespace octet::cli
