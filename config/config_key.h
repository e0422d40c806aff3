// What a table row says about one key of a configuration file.
#pragma once

#include <string>

namespace octet {

/// One key that a file may hold: the row's text, for documentation and for tests.
struct ConfigKeyInfo {
  std::string path;     ///< "listen.grpc_port"; `*` stands for any name.
  std::string unit;     ///< "bytes", "us", ...; empty for a plain value.
  std::string accepts;  ///< "0 .. 65535", "true or false", ...
  std::string meaning;  ///< One sentence.
};

}  // namespace octet
