// What oneDNN can do on this machine.
#pragma once

#include <string>
#include <string_view>

#include "engine/ops/target.h"

namespace octet::onednn {

/// The instruction sets that oneDNN uses here (ONEDNN_MAX_CPU_ISA counts), and what they make possible. The first call
/// keeps kernels on Highway to them, too.
Target DetectTarget(int threads);

/// The oneDNN version in use, "3.7.2".
std::string Version();

/// The instruction set inside an implementation name: "brg_conv_fwd:avx2" -> "avx2"; empty when it names none.
std::string_view IsaOf(std::string_view impl);

}  // namespace octet::onednn
