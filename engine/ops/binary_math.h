// The two-argument scalar functions of the elementwise operators, for every element type. Integers wrap around on
// overflow; a division or remainder by the integer 0 gives 0 (ONNX leaves it undefined, a trap would end the process).
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace octet::math {

struct Add {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::integral<T>) {
      return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    } else {
      return a + b;
    }
  }
};

struct Sub {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::integral<T>) {
      return static_cast<T>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
    } else {
      return a - b;
    }
  }
};

struct Mul {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::integral<T>) {
      return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    } else {
      return a * b;
    }
  }
};

/// Truncates towards zero for integers.
struct Div {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::signed_integral<T>) {
      if (b == -1)
        return Sub{}(T{0}, a);  // The lowest integer has no positive counterpart: it wraps.
    }
    if constexpr (std::integral<T>) {
      return b == 0 ? T{0} : static_cast<T>(a / b);
    } else {
      return a / b;
    }
  }
};

/// The remainder with the divisor's sign (Python's %). Source: ONNX Mod, fmod = 0.
struct FloorMod {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::floating_point<T>) {
      const T r = std::fmod(a, b);
      return r != 0 && (r < 0) != (b < 0) ? r + b : r;
    } else {
      if (b == 0) return T{0};
      if constexpr (std::signed_integral<T>) {
        if (b == -1) return T{0};
      }
      const T r = static_cast<T>(a % b);
      return r != 0 && (r < 0) != (b < 0) ? static_cast<T>(r + b) : r;
    }
  }
};

/// The remainder with the dividend's sign (C's fmod). Source: ONNX Mod, fmod = 1.
struct TruncatedMod {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::floating_point<T>) {
      return std::fmod(a, b);
    } else {
      if (b == 0) return T{0};
      if constexpr (std::signed_integral<T>) {
        if (b == -1) return T{0};
      }
      return static_cast<T>(a % b);
    }
  }
};

/// A NaN on either side is the result, as in numpy.
struct Max {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::floating_point<T>) {
      const T larger = a > b ? a : b;  // b when one of them is NaN.
      return a != a ? a : larger;
    } else {
      return a > b ? a : b;
    }
  }
};

struct Min {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::floating_point<T>) {
      const T smaller = a < b ? a : b;
      return a != a ? a : smaller;
    } else {
      return a < b ? a : b;
    }
  }
};

/// x for x >= 0, slope * x below.
struct PRelu {
  template <typename T>
  T operator()(T x, T slope) const {
    return x < T{0} ? Mul{}(slope, x) : x;
  }
};

/// base^exponent in base's type: exact (wrapping) for integers, through double otherwise; float and double as
/// the C library does. An integer result out of range saturates.
struct Pow {
  template <typename T, typename E>
  T operator()(T base, E exponent) const {
    if constexpr (std::integral<T> && std::integral<E>) {
      return IntegerPower(base, exponent);
    } else if constexpr (std::same_as<T, float> && std::same_as<E, float>) {
      return std::pow(base, exponent);
    } else if constexpr (std::floating_point<T>) {
      return static_cast<T>(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
    } else {
      return Saturate<T>(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
    }
  }

 private:
  template <typename T, typename E>
  static T IntegerPower(T base, E exponent) {
    if (exponent < 0) {
      if (base == 1) return 1;
      if (base != T(-1)) return 0;
      return exponent % 2 == 0 ? T{1} : T(-1);
    }
    T result = 1;
    for (; exponent > 0; exponent = static_cast<E>(exponent / 2)) {
      if (exponent % 2 != 0) result = Mul{}(result, base);
      base = Mul{}(base, base);
    }
    return result;
  }

  template <typename T>
  static T Saturate(double value) {
    constexpr double kLow = static_cast<double>(std::numeric_limits<T>::min());
    constexpr double kHigh = static_cast<double>(std::numeric_limits<T>::max());
    if (!(value > kLow)) return value <= kLow ? std::numeric_limits<T>::min() : T{0};
    return value >= kHigh ? std::numeric_limits<T>::max() : static_cast<T>(value);
  }
};

}  // namespace octet::math
