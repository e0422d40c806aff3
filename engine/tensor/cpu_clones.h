// Function multiversioning for bulk loops: the build targets plain x86-64, the loops run on what the CPU has.
#pragma once

/// Put before a free, non-template function whose loop the compiler vectorises: it is compiled for the
/// baseline, for AVX2 (x86-64-v3) and for AVX-512 (x86-64-v4), and the dynamic linker picks one when the
/// program starts. What it calls must be inlined to profit. The two wider ones contract a * b + c into one
/// rounding; keep such sums out of loops whose bits must not depend on the CPU.
/// Not under ThreadSanitizer: what picks one runs before TSan is there, which it calls.
/// Source: GCC manual, "target_clones".
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(OCTET_THREAD_SANITIZER)
#define OCTET_CPU_CLONES \
  __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
/// The same for loops whose sums are the same bits on every CPU: AVX2 alone brings no fused multiply-add.
#define OCTET_UNFUSED_CPU_CLONES __attribute__((target_clones("default", "avx2")))
#else
#define OCTET_CPU_CLONES
#define OCTET_UNFUSED_CPU_CLONES
#endif
