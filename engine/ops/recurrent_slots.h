// The input slots of LSTM, GRU and RNN.
#pragma once

#include <cstddef>

namespace octet::recurrent {

/// GRU and RNN have no initial_c and no peepholes.
inline constexpr size_t kX = 0, kW = 1, kR = 2, kBias = 3, kLengths = 4, kInitialH = 5,
                        kInitialC = 6, kPeepholes = 7;

}  // namespace octet::recurrent
