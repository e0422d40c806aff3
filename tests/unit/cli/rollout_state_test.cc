#include "cli/rollout_state.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace rollout_state_test {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class RolloutStateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "octet-rollout-XXXXXX").string();
    model_ = mkdtemp(pattern.data());
    auto folder = RolloutFolder::Open(model_);
    ASSERT_TRUE(folder.ok()) << folder.status();
    folder_.emplace(*std::move(folder));
  }
  void TearDown() override { fs::remove_all(model_); }

  static std::string Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static void Write(const std::string& path, std::string_view text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  std::string state_path() const { return model_ + "/.rollout/state.json"; }
  /// The state as it is written, without the keys that an older version did not know.
  void SaveAsOlder(const RolloutState& state, std::initializer_list<const char*> unknown) {
    ASSERT_TRUE(folder_->Save(state).ok());
    auto json = nlohmann::json::parse(Read(state_path()));
    for (const char* key : unknown) json.erase(key);
    json.at("plan").erase("precisions");
    Write(state_path(), json.dump());
  }

  std::string model_;
  std::optional<RolloutFolder> folder_;
};

RolloutState UnderWay() {
  RolloutState state;
  state.phase = RolloutPhase::kServe;
  state.model = "net";
  state.version = "1";
  state.plan.precisions = {Precision::kFp32, Precision::kInt8};
  state.stage_began_ms = 1'700'000'000'456;
  state.stage_entered_ms = 1'700'000'000'345;
  state.routed = state.installed = state.replaced = true;
  state.experiment_ms = 1'700'000'000'123;
  state.server_ms = 1'700'000'000'001;
  state.restarts = 1;
  return state;
}

TEST_F(RolloutStateTest, ComesBackAsItWasSaved) {
  ASSERT_TRUE(folder_->Save(UnderWay()).ok());
  Write(folder_->previous(), "of an earlier promotion");
  const auto state = folder_->Load();
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->plan, UnderWay().plan);
  EXPECT_EQ(state->stage_began_ms, UnderWay().stage_began_ms);
  EXPECT_EQ(state->stage_entered_ms, UnderWay().stage_entered_ms);
  EXPECT_EQ(state->experiment_ms, UnderWay().experiment_ms);
  EXPECT_EQ(state->server_ms, UnderWay().server_ms);
  EXPECT_EQ(state->restarts, 1);
  EXPECT_EQ(Read(folder_->previous()), "of an earlier promotion");
  EXPECT_FALSE(fs::exists(folder_->replaced()));
}

TEST_F(RolloutStateTest, AReasonIsSavedWhateverItsBytesAre) {
  RolloutState state = UnderWay();
  state.reason = "http://proxy answered 500: d\xe9sol\xe9";
  ASSERT_TRUE(folder_->Save(state).ok());
  const auto loaded = folder_->Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(loaded->reason, HasSubstr("http://proxy answered 500: d"));
  ASSERT_TRUE(folder_->Note("rolled back", {{"reason", state.reason}}).ok());
  EXPECT_THAT(Read(model_ + "/.rollout/journal.jsonl"), HasSubstr("proxy answered 500"));
}

TEST_F(RolloutStateTest, AnOlderOneHasWhatItReplacedWhereThePreviousFileIsNow) {
  SaveAsOlder(UnderWay(), {"layout", "server_ms", "experiment_ms", "restarts", "stage_entered_ms"});
  Write(folder_->previous(), "replaced");
  for (int look = 0; look < 2; ++look) {
    const auto state = folder_->Load();
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_TRUE(state->plan.precisions.empty()) << "as model.yaml says";
    EXPECT_EQ(state->server_ms, 0);
    EXPECT_EQ(state->stage_entered_ms, UnderWay().stage_began_ms);
    EXPECT_EQ(Read(folder_->replaced()), "replaced");
    EXPECT_FALSE(fs::exists(folder_->previous()));
  }
}

TEST_F(RolloutStateTest, AnOlderOneThatIsOverKeepsThePreviousFile) {
  RolloutState state = UnderWay();
  state.phase = RolloutPhase::kPromoted;
  SaveAsOlder(state, {"layout"});
  Write(folder_->previous(), "previous");
  EXPECT_TRUE(folder_->Load().ok());
  EXPECT_EQ(Read(folder_->previous()), "previous");
}

TEST_F(RolloutStateTest, ANewerOneIsLeftAlone) {
  Write(state_path(), R"({"layout": 3, "phase": {"unknown": true}})");
  const auto state = folder_->Load();
  EXPECT_EQ(state.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(state.status())),
              HasSubstr("of a newer octet, which must go on with it"));
}

TEST_F(RolloutStateTest, ADamagedOneIsNamed) {
  for (const char* text : {"", "[]", "{\"phase\": 1}", "{\"layout\": \"two\"}"}) {
    Write(state_path(), text);
    EXPECT_THAT(std::string(Message(folder_->Load().status())),
                HasSubstr(state_path() + ": damaged, remove it to begin anew"))
        << text;
  }
  // None is a stage, and each would move traffic as if it were one.
  for (const int kind : {-1, 3, 256}) {
    ASSERT_TRUE(folder_->Save(UnderWay()).ok());
    auto json = nlohmann::json::parse(Read(state_path()));
    json["stage"]["kind"] = kind;
    Write(state_path(), json.dump());
    EXPECT_THAT(std::string(Message(folder_->Load().status())), HasSubstr("damaged")) << kind;
  }
}

}  // namespace rollout_state_test
}  // namespace octet::cli
