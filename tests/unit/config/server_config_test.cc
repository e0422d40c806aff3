#include "config/server_config.h"

#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/source_folder.h"

namespace octet {
namespace server_config_test {

using ::testing::HasSubstr;

std::string ErrorOf(std::string_view yaml) {
  const auto config = ParseServerConfig(yaml, "octet.yaml");
  return config.ok() ? "no error" : std::string(Message(config.status()));
}

std::string ShippedFile() {
  std::ifstream in(SourceFolder() / "config/octet.yaml");
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// The line of `text` that gives the key `path`, found by walking down its parts.
std::string LineOf(const std::string& text, const std::string& path) {
  std::istringstream parts(path);
  std::istringstream lines(text);
  std::string line;
  for (std::string part, indent; std::getline(parts, part, '.'); indent += "  ") {
    const std::string start = indent + part + ":";
    while (std::getline(lines, line) && !line.starts_with(start)) {
    }
  }
  return lines ? line : "";
}

TEST(ServerConfigTest, AnEmptyFileGivesTheDefaults) {
  EXPECT_EQ(*ParseServerConfig("", "octet.yaml"), ServerConfig());
  EXPECT_EQ(*ParseServerConfig("listen:\n  # grpc_port: 1\n", "octet.yaml"), ServerConfig());
}

TEST(ServerConfigTest, TheShippedFileIsExactlyTheDefaults) {
  const auto config = LoadServerConfig(SourceFolder() / "config/octet.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*config, ServerConfig());
}

TEST(ServerConfigTest, TheShippedFileHoldsEveryKeyWithItsUnitAndItsRange) {
  const std::string text = ShippedFile();
  for (const ConfigKeyInfo& key : ServerConfigKeys()) {
    const std::string line = LineOf(text, key.path);
    const std::string unit = key.unit.empty() ? "[" : "[" + key.unit + "; ";
    EXPECT_THAT(line, HasSubstr(unit + key.accepts + "]")) << key.path;
    EXPECT_THAT(line, HasSubstr("] " + key.meaning)) << key.path;
  }
}

TEST(ServerConfigTest, ValuesOverrideDefaults) {
  const auto config = ParseServerConfig(
      "name: front\n"
      "repository: {path: /srv/models, poll_seconds: 5, strict: true}\n"
      "listen: {address: 127.0.0.1, grpc_port: 0}\n"
      "engine: {require_int8_percent: 97.5, disabled_passes: [fold_constants]}\n"
      "logging: {level: warn}\n",
      "octet.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  ServerConfig expected;
  expected.name = "front";
  expected.repository = {"/srv/models", 5, true};
  expected.listen.address = "127.0.0.1";
  expected.listen.grpc_port = 0;
  expected.engine.require_int8_percent = 97.5;
  expected.engine.disabled_passes = {"fold_constants"};
  expected.logging.level = "warn";
  EXPECT_EQ(*config, expected);
}

TEST(ServerConfigTest, AnUnknownKeyNamesItsPlaceAndTheNearestKey) {
  EXPECT_EQ(ErrorOf("listen:\n  grcp_port: 8001\n"),
            "octet.yaml:2:3: listen.grcp_port: unknown key, did you mean \"grpc_port\"?");
  EXPECT_EQ(ErrorOf("xyzzy: 1\n"), "octet.yaml:1:1: xyzzy: unknown key");
}

TEST(ServerConfigTest, EveryMistakeIsReported) {
  EXPECT_EQ(ErrorOf("listen: {grpc_port: 70000}\nlogging:\n  level: loud\nworkers: 4\n"),
            "octet.yaml:1:21: listen.grpc_port: expected 0 .. 65535, got 70000\n"
            "octet.yaml:3:10: logging.level: expected one of trace, debug, info, warn, error, off; "
            "got \"loud\"\n"
            "octet.yaml:4:10: workers: expected a mapping of keys to values");
}

TEST(ServerConfigTest, ValuesOfTheWrongKindAreRefused) {
  EXPECT_THAT(ErrorOf("listen: {grpc_port: 80x}"), HasSubstr("expected a whole number"));
  EXPECT_THAT(ErrorOf("listen: {grpc_port: 80.5}"), HasSubstr("expected a whole number"));
  EXPECT_THAT(ErrorOf("listen: {grpc_port: [1]}"), HasSubstr("got a list"));
  EXPECT_THAT(ErrorOf("limits: {max_message_bytes: 2147483648}"),
              HasSubstr("expected 1024 .. 2147483647"));
  EXPECT_THAT(ErrorOf("limits: {max_message_bytes: 99999999999999999999}"),
              HasSubstr("whole number"));
  EXPECT_THAT(ErrorOf("repository: {strict: maybe}"), HasSubstr("expected true or false"));
  EXPECT_THAT(ErrorOf("engine: {require_int8_percent: .nan}"), HasSubstr("expected 0 .. 100"));
  EXPECT_THAT(ErrorOf("engine: {disabled_passes: fold}"), HasSubstr("expected a list"));
  EXPECT_THAT(ErrorOf("name:\n"), HasSubstr("octet.yaml:1:1: name: key without a value"));
  EXPECT_THAT(ErrorOf("[1, 2]"), HasSubstr("expected a mapping"));
}

TEST(ServerConfigTest, TheNameIsUtf8) {
  EXPECT_EQ(ParseServerConfig("name: caf\u00e9", "octet.yaml")->name, "caf\u00e9");
  EXPECT_EQ(Message(ParseServerConfig("name: caf\xE9", "octet.yaml").status()),
            "octet.yaml: name: expected UTF-8, got \"caf\uFFFD\"");
}

TEST(ServerConfigTest, AKeyGivenTwiceIsRefused) {
  EXPECT_EQ(ErrorOf("name: a\nname: b\n"), "octet.yaml:2:1: name: key given twice");
  EXPECT_THAT(ErrorOf("listen: {grpc_port: 1}\nlisten: {http_port: 2}\n"),
              HasSubstr("octet.yaml:2:1: listen: key given twice"));
}

TEST(ServerConfigTest, TextThatIsNoYamlNamesLineAndColumn) {
  EXPECT_THAT(ErrorOf("name: [1, 2\nlisten: {\n"), HasSubstr("octet.yaml:"));
  EXPECT_THAT(ErrorOf("name: *nowhere\n"), HasSubstr("octet.yaml:1:"));
  EXPECT_THAT(ErrorOf("---\nname: a\n---\nname: b\n"), HasSubstr("expected one YAML document"));
  EXPECT_THAT(ErrorOf(std::string(5000, '[')), HasSubstr("octet.yaml"));
}

TEST(ServerConfigTest, ABatchAboveTheLimitIsRefused) {
  EXPECT_THAT(ErrorOf("limits: {max_batch: 4}\nbatching: {max_batch: 5}\n"),
              HasSubstr("larger than limits.max_batch = 4: 5"));
}

TEST(ServerConfigTest, TheDefaultPriorityIsAmongTheLevels) {
  EXPECT_EQ(ErrorOf("batching: {default_priority: 1}\n"),
            "octet.yaml: batching.default_priority: not among batching.priority_levels = 0: 1");
  EXPECT_EQ(ServerConfig().batching.DefaultPriority(), 1);
}

TEST(ServerConfigTest, ThereIsRoomForTheLargestMessages) {
  constexpr int64_t kMebi = int64_t{1} << 20;
  EXPECT_EQ(ServerConfig().limits.ReceiveBytes(), 1024 * kMebi);
  EXPECT_EQ(ParseServerConfig("limits: {max_message_bytes: 2147483647}", "")->limits.ReceiveBytes(),
            16 * (2048 * kMebi - 1));
  EXPECT_EQ(ParseServerConfig("limits: {max_receive_bytes: 268435456}", "")->limits.ReceiveBytes(),
            256 * kMebi);
  EXPECT_THAT(ErrorOf("limits: {max_receive_bytes: 1000000}"),
              HasSubstr("less than two messages (limits.max_message_bytes = 67108864): 1000000"));
}

TEST(ServerConfigTest, EachPortMayHaveAnAddressOfItsOwn) {
  const auto config = ParseServerConfig(
      "listen: {address: 10.0.0.5, http_address: 127.0.0.1, metrics_address: \"::1\"}\n", "");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen.GrpcAddress(), "10.0.0.5");
  EXPECT_EQ(config->listen.HttpAddress(), "127.0.0.1");
  EXPECT_EQ(config->listen.MetricsAddress(), "::1");
}

TEST(ServerConfigTest, TlsTakesACertificateWithItsKey) {
  const auto config = ParseServerConfig(
      "listen:\n  grpc_tls: {certificate: tls.crt, key: tls.key, client_ca: ca.crt}\n", "");
  ASSERT_TRUE(config.ok()) << config.status();
  const ServerConfig::Listen::GrpcTls expected = {"tls.crt", "tls.key", "ca.crt"};
  EXPECT_EQ(config->listen.grpc_tls, expected);
  EXPECT_EQ(ErrorOf("listen: {grpc_tls: {certificate: tls.crt}}\n"),
            "octet.yaml: listen.grpc_tls: expected a certificate and its key, got certificate "
            "\"tls.crt\" and key \"\"");
  EXPECT_THAT(ErrorOf("listen: {grpc_tls: {key: tls.key}}\n"), HasSubstr("key \"tls.key\""));
  EXPECT_EQ(ErrorOf("listen: {grpc_tls: {client_ca: ca.crt}}\n"),
            "octet.yaml: listen.grpc_tls.client_ca: expected a certificate and a key with it, got "
            "client_ca \"ca.crt\" alone");
}

TEST(ServerConfigTest, AMissingFileIsNotFound) {
  const auto config = LoadServerConfig("/nonexistent/octet.yaml");
  EXPECT_EQ(config.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(config.status())), HasSubstr("/nonexistent/octet.yaml"));
}

}  // namespace server_config_test
}  // namespace octet
