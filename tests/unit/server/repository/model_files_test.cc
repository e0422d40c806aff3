#include "server/repository/model_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/as_nobody.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace model_files_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TEST(ModelFilesTest, FindsModelsVersionsAndVariants) {
  ModelFolder folder;
  folder.Write("a/model.yaml", "");
  folder.Write("a/1/fp32.onnx", "x");
  folder.Write("a/12/int8.onnx", "x");
  folder.Write("a/12/int8-dynamic.onnx", "x");
  folder.Write("b/3/bf16.onnx", "x");
  folder.Write("README.md", "x");
  folder.Write("a/labels.txt", "x");
  folder.Write("lost+found/1/fp32.onnx", "x");
  const auto found = ScanRepository(folder.path());
  ASSERT_TRUE(found.ok()) << found.status();
  const std::map<std::string, ModelFiles>& models = found->models;
  EXPECT_THAT(models, ElementsAre(Key("a"), Key("b")));
  EXPECT_THAT(found->unreadable, ElementsAre());
  const ModelFiles& a = models.at("a");
  EXPECT_TRUE(a.labels.has_value());
  EXPECT_TRUE(a.config.has_value());
  EXPECT_THAT(a.versions, ElementsAre(Key(1), Key(12)));
  EXPECT_THAT(a.versions.at(12), ElementsAre(Key(Precision::kInt8), Key(Precision::kInt8Dynamic)));
  EXPECT_EQ(a.versions.at(1).at(Precision::kFp32).path, folder.path("a/1/fp32.onnx"));
  EXPECT_THAT(a.ignored, ElementsAre());
  EXPECT_FALSE(models.at("b").config.has_value());
  EXPECT_EQ(VariantPath(a, 12, Precision::kFp16), folder.path("a/12/fp16.onnx"));
}

TEST(ModelFilesTest, WhatMeansNothingIsNamed) {
  ModelFolder folder;
  for (const char* file : {"a/01/fp32.onnx", "a/0/fp32.onnx", "a/-1/fp32.onnx", "a/v2/fp32.onnx",
                           "a/99999999999999999999/fp32.onnx", "a/7", "a/1/fp64.onnx",
                           "a/1/fp32.onnx/inside", "a/.git/config", "a/1/.fp32.onnx.part"}) {
    folder.Write(file, "x");
  }
  const auto model = ScanModel(folder.path(), "a");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->versions, ElementsAre(Pair(1, ElementsAre())));
  EXPECT_THAT(model->ignored,
              UnorderedElementsAre(folder.path("a/01"), folder.path("a/0"), folder.path("a/-1"),
                                   folder.path("a/v2"), folder.path("a/99999999999999999999"),
                                   folder.path("a/7"), folder.path("a/1/fp64.onnx"),
                                   folder.path("a/1/fp32.onnx")));
}

/// Prometheus refuses all series for one label that is no UTF-8, and gRPC's clients an index with such a row.
TEST(ModelFilesTest, AFolderWhoseNameIsNoUtf8IsNoModel) {
  ModelFolder folder;
  folder.Write("caf\u00e9/1/fp32.onnx", "x");
  folder.Write("caf\xE9/1/fp32.onnx", "x");
  folder.Write("notes-\xE9", "x");
  const auto found = ScanRepository(folder.path());
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(found->models, ElementsAre(Key("caf\u00e9")));
  EXPECT_THAT(found->unreadable, ElementsAre());
  EXPECT_THAT(found->ignored, ElementsAre(folder.path("caf\xE9")));
  EXPECT_EQ(ScanModel(folder.path(), "caf\xE9").status().code(), absl::StatusCode::kNotFound);
}

TEST(ModelFilesTest, OnlyAPlainFolderNameIsAModel) {
  ModelFolder folder;
  folder.Write("a/1/fp32.onnx", "x");
  folder.Write("file", "x");
  for (const std::string_view name : {"", ".", "..", "a/1", "a/", "../a", "/etc", "file", "b"}) {
    EXPECT_EQ(ScanModel(folder.path(), name).status().code(), absl::StatusCode::kNotFound) << name;
  }
  EXPECT_EQ(ScanModel(folder.path(), std::string(256, 'a')).status().code(),
            absl::StatusCode::kNotFound)
      << "no file has such a name";
  EXPECT_EQ(ScanModel(folder.path(), std::string(5000, 'a')).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(IsModelName(std::string_view("a\0", 2)));
  const auto missing = ScanRepository(folder.path("nowhere"));
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(missing.status())), HasSubstr(folder.path("nowhere")));
}

TEST(ModelFilesTest, WhatCannotBeLookedAtIsNotAbsent) {
  ModelFolder folder;
  for (const char* file : {"a/1/fp32.onnx", "b/1/fp32.onnx", "c/1/fp32.onnx", "d/2/fp32.onnx"}) {
    folder.Write(file, "x");
  }
  std::filesystem::create_symlink(folder.path("nowhere"), folder.path("c/1/int8.onnx"));
  std::filesystem::create_symlink(folder.path("c/7"), folder.path("c/7"));
  folder.Show("", true);
  folder.Show("a/1", false);
  folder.Show("b", false);
  {
    const AsNobody nobody;
    const auto found = ScanRepository(folder.path());
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_THAT(found->models, ElementsAre(Key("c"), Key("d")))
        << "links that lead nowhere are none";
    EXPECT_THAT(found->unreadable, ElementsAre(Key("a"), Key("b")));
    const absl::Status a = ScanModel(folder.path(), "a").status();
    EXPECT_EQ(a.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(Message(a)), HasSubstr(folder.path("a/1")));
    EXPECT_EQ(ScanModel(folder.path(), "b").status().code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(ScanModel(folder.path(), "e").status().code(), absl::StatusCode::kNotFound);
  }
  folder.Show("", false);
  {
    const AsNobody nobody;
    EXPECT_EQ(ScanRepository(folder.path()).status().code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(ScanModel(folder.path(), "d").status().code(), absl::StatusCode::kUnavailable);
  }
  for (const char* shown : {"", "b", "a/1"}) folder.Show(shown, true);
}

TEST(ModelFilesTest, AFolderIsToldFromWhatCannotBeLookedAt) {
  ModelFolder folder;
  folder.Write("a/b/file", "x");
  folder.Show("", true);
  folder.Show("a", false);
  EXPECT_FALSE(*IsFolder(folder.path("nowhere")));
  {
    const AsNobody nobody;
    EXPECT_TRUE(*IsFolder(folder.path("a")));
    EXPECT_EQ(IsFolder(folder.path("a/b")).status().code(), absl::StatusCode::kUnavailable);
  }
  folder.Show("a", true);
  EXPECT_FALSE(*IsFolder(folder.path("a/b/file")));
}

TEST(ModelFilesTest, AStampChangesWithTheFile) {
  ModelFolder folder;
  folder.Write("a/1/fp32.onnx", "one");
  const auto scan = [&] { return *ScanModel(folder.path(), "a"); };
  const ModelFiles before = scan();
  EXPECT_EQ(before, scan());
  folder.Write("a/1/fp32.onnx", "two");
  EXPECT_NE(before, scan());
}

TEST(ModelFilesTest, TensorsBesideAFileBelongToItsStamp) {
  ModelFolder folder;
  folder.Write("a/1/fp32.onnx", "x");
  folder.Write("a/1/int8.onnx", "x");
  folder.Write("a/1/fp32.onnx.data", "one");
  const ModelFiles before = *ScanModel(folder.path(), "a");
  folder.Write("a/1/fp32.onnx.data", "two");
  const ModelFiles after = *ScanModel(folder.path(), "a");
  EXPECT_NE(before.versions.at(1).at(Precision::kFp32), after.versions.at(1).at(Precision::kFp32));
  folder.Write("a/1/int8.onnx", "y");
  EXPECT_EQ(after.versions.at(1).at(Precision::kFp32),
            ScanModel(folder.path(), "a")->versions.at(1).at(Precision::kFp32));
}

TEST(ModelFilesTest, LinksAreFollowed) {
  ModelFolder folder;
  folder.Write("store/1/fp32.onnx", "x");
  std::filesystem::create_symlink(folder.path("store"), folder.path("a"));
  EXPECT_THAT(ScanModel(folder.path(), "a")->versions, ElementsAre(Key(1)));
}

}  // namespace model_files_test
}  // namespace octet
