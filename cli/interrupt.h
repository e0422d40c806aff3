// Ctrl-C as a value, for long work that has something to keep.
#pragma once

namespace octet::cli {

/// From here on the first SIGINT or SIGTERM only sets Interrupted(); the second one ends the process at once.
void StopOnInterrupt();
bool Interrupted();

}  // namespace octet::cli
