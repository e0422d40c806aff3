#include "server/rpc/inflater.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/packed.h"

namespace octet {
namespace inflater_test {

using Coding = Inflater::Coding;
using Result = Inflater::Result;

struct Unpacked {
  Result result = Result::kOk;
  std::string text;
};

/// Unpacks pieces of `piece` bytes into rooms of `room`.
Unpacked Unpack(std::string_view packed, Coding coding, size_t most, size_t piece, size_t room) {
  Unpacked unpacked;
  std::string& text = unpacked.text;
  Inflater inflater(coding, most);
  const auto make_room = [&] {
    text.resize(text.size() + room);
    return std::span(text).last(room);
  };
  for (size_t at = 0; at < packed.size() && unpacked.result == Result::kOk; at += piece) {
    unpacked.result = inflater.Take(packed.substr(at, piece), make_room);
  }
  if (unpacked.result == Result::kOk) unpacked.result = inflater.Finish();
  text.resize(text.size() - inflater.unused());
  return unpacked;
}

std::string Text(size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += std::to_string(text.size() * text.size()) + ' ';
  text.resize(bytes);
  return text;
}

TEST(InflaterTest, UnpacksWhateverThePiecesAndTheRooms) {
  const std::string text = Text(3000);
  const std::string whole = Packed(text);
  const std::string members = Packed(Text(100)) + Packed("") + Packed(text.substr(100));
  for (const size_t piece : {1, 7, 100, 10'000}) {
    for (const size_t room : {1, 13, 3000, 10'000}) {
      for (const std::string& packed : {whole, members}) {
        const Unpacked unpacked = Unpack(packed, Coding::kGzip, 3000, piece, room);
        EXPECT_EQ(unpacked.result, Result::kOk) << piece << ' ' << room;
        EXPECT_EQ(unpacked.text, text);
      }
      const Unpacked deflated = Unpack(Packed(text, 15), Coding::kDeflate, 3000, piece, room);
      EXPECT_EQ(deflated.result, Result::kOk) << piece << ' ' << room;
      EXPECT_EQ(deflated.text, text);
    }
  }
  EXPECT_EQ(Unpack("", Coding::kGzip, 0, 1, 1).result, Result::kOk);
}

TEST(InflaterTest, WhatBreaksOffOrGoesOnIsDamaged) {
  const std::string gzip = Packed(Text(3000));
  const std::string zlib = Packed(Text(3000), 15);
  for (const size_t piece : {1, 100, 10'000}) {
    for (size_t cut = 1; cut < gzip.size(); cut = 2 * cut + 1) {
      const std::string_view part = std::string_view(gzip).substr(0, gzip.size() - cut);
      EXPECT_EQ(Unpack(part, Coding::kGzip, 10'000, piece, 100).result, Result::kDamaged) << cut;
    }
    for (const std::string& behind : {std::string("x"), std::string(1, '\0'), gzip.substr(0, 5)}) {
      EXPECT_EQ(Unpack(gzip + behind, Coding::kGzip, 10'000, piece, 100).result, Result::kDamaged);
    }
    EXPECT_EQ(Unpack(zlib.substr(0, zlib.size() - 1), Coding::kDeflate, 10'000, piece, 100).result,
              Result::kDamaged);
    EXPECT_EQ(Unpack(zlib + zlib, Coding::kDeflate, 10'000, piece, 100).result, Result::kDamaged);
  }
  std::string changed = gzip;
  changed[changed.size() - 6] ^= 1;  // of the checksum
  EXPECT_EQ(Unpack(changed, Coding::kGzip, 10'000, 100, 100).result, Result::kDamaged);
  EXPECT_EQ(Unpack(gzip, Coding::kDeflate, 10'000, 100, 100).result, Result::kDamaged);
}

TEST(InflaterTest, TheBoundIsOfAllMembersTogether) {
  const std::string bomb = Packed(std::string(1 << 20, ' '));
  const Unpacked unpacked = Unpack(bomb, Coding::kGzip, 10'000, 100, 4096);
  EXPECT_EQ(unpacked.result, Result::kTooLarge);
  EXPECT_LE(unpacked.text.size(), 10'000U + 4096U);
  const std::string two = Packed(Text(3000)) + Packed(Text(3000));
  EXPECT_EQ(Unpack(two, Coding::kGzip, 6000, 100, 100).result, Result::kOk);
  EXPECT_EQ(Unpack(two, Coding::kGzip, 5999, 100, 100).result, Result::kTooLarge);
}

}  // namespace inflater_test
}  // namespace octet
