// What the machine can compute in; asked once (onednn/isa.h) and handed down, so that tests can ask for
// a machine that they do not run on.
#pragma once

#include <string>

namespace octet {

struct Target {
  std::string isa;          ///< oneDNN's name: "avx2", "avx512_core_vnni", "avx512_core_bf16", ...
  bool bf16 = false;        ///< bf16 convolution and matmul primitives exist.
  bool f16 = false;         ///< float16 arithmetic exists (AVX512-FP16, AMX-FP16).
  bool int8_exact = false;  ///< u8 x s8 pairs cannot saturate in 16 bits (VNNI or newer).
  int threads = 1;          ///< OpenMP team size that plans are compiled for.
};

}  // namespace octet
