// The chance that splits, shadows and captures leave their choices to.
#pragma once

namespace octet {

/// Uniform in [0, 1), another one each time. Thread-safety: safe.
double Draw();

}  // namespace octet
