#include "server/picture/picture.h"

#include <algorithm>
#include <cstdlib>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/picture_files.h"

namespace octet {
namespace picture_test {

using ::testing::HasSubstr;

/// Slow slopes, which JPEG keeps.
int Slope(int x, int y, int channel) {
  return std::clamp(40 + 3 * x + (channel == 1 ? 2 * y : y) + 20 * channel, 0, 255);
}

int At(const Picture& picture, int x, int y, int channel = 0) {
  return picture.pixels[static_cast<size_t>(y) * picture.stride() +
                        static_cast<size_t>(x * picture.channels + channel)];
}

/// The largest distance of a pixel from `expected`.
int Farthest(const Picture& picture, const PixelOf& expected) {
  int farthest = 0;
  for (int y = 0; y < picture.height; ++y) {
    for (int x = 0; x < picture.width; ++x) {
      for (int c = 0; c < picture.channels; ++c) {
        farthest = std::max(farthest, std::abs(At(picture, x, y, c) - expected(x, y, c)));
      }
    }
  }
  return farthest;
}

Picture Decoded(const std::string& file, const DecodeOptions& options = {}) {
  auto picture = DecodePicture(file, options);
  EXPECT_TRUE(picture.ok()) << picture.status();
  return picture.ok() ? *std::move(picture) : Picture();
}

std::string ErrorOf(const std::string& file, const DecodeOptions& options = {}) {
  const auto picture = DecodePicture(file, options);
  if (picture.ok()) return "no error";
  EXPECT_EQ(picture.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(Message(picture.status()));
}

int SlopeGrey(int x, int y, int) { return GreyOf(Slope(x, y, 0), Slope(x, y, 1), Slope(x, y, 2)); }

TEST(PictureTest, ADecodingEndsWithItsLimits) {
  const std::atomic<bool> cancelled{true};
  for (const std::string& file :
       {MakeJpeg(64, 64, Slope), MakeJpeg(64, 640, Slope, {.progressive = true}),
        MakePng(64, 64, Slope), MakePng(64, 64, Slope, {.interlaced = true})}) {
    EXPECT_TRUE(DecodePicture(file, {}).ok());
    const auto left = DecodePicture(file, {.limits = {.cancelled = &cancelled}});
    EXPECT_EQ(left.status().code(), absl::StatusCode::kCancelled) << left.status();
    const auto late =
        DecodePicture(file, {.limits = {.deadline = std::chrono::steady_clock::now()}});
    EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded) << late.status();
  }
  EXPECT_EQ(DecodeMemory::used(), 0U);
}

TEST(PictureTest, ReadsJpegOfEveryKind) {
  for (const bool progressive : {false, true}) {
    const std::string file = MakeJpeg(37, 21, Slope, {.progressive = progressive});
    const Picture colours = Decoded(file);
    EXPECT_EQ(colours.width, 37);
    EXPECT_EQ(colours.height, 21);
    EXPECT_LE(Farthest(colours, Slope), 8);
    const Picture grey = Decoded(file, {.channels = 1});
    EXPECT_EQ(grey.channels, 1);
    EXPECT_LE(Farthest(grey, SlopeGrey), 4);
  }
  const std::string grey = MakeJpeg(16, 16, Slope, {.channels = 1});
  EXPECT_LE(Farthest(Decoded(grey), [](int x, int y, int) { return Slope(x, y, 0); }), 4);
}

TEST(PictureTest, ReadsInksAsAdobeWritesThem) {
  // Inverted: 255 is no ink. Red is what cyan leaves, times what black leaves.
  const auto inks = [](int x, int, int channel) { return channel == 3 ? 128 : 8 * x; };
  const auto light = [](int x, int, int) { return 8 * x * 128 / 255; };
  for (const bool ycck : {false, true}) {
    const std::string file = MakeJpeg(24, 16, inks, {.channels = 4, .ycck = ycck});
    EXPECT_LE(Farthest(Decoded(file), light), 4);
    EXPECT_LE(Farthest(Decoded(file, {.channels = 1}), light), 4);
  }
}

TEST(PictureTest, ReadsPngOfEveryKind) {
  for (const bool interlaced : {false, true}) {
    const auto file = [&](int type, int bits, const PixelOf& pixel) {
      return MakePng(37, 21, pixel, {.type = type, .bits = bits, .interlaced = interlaced});
    };
    for (const int bits : {8, 16}) {
      EXPECT_EQ(Farthest(Decoded(file(PNG_COLOR_TYPE_RGB, bits, Slope)), Slope), 0);
      EXPECT_EQ(Farthest(Decoded(file(PNG_COLOR_TYPE_RGB_ALPHA, bits, Slope)), Slope), 0);
      const Picture grey = Decoded(file(PNG_COLOR_TYPE_RGB, bits, Slope), {.channels = 1});
      EXPECT_EQ(Farthest(grey, SlopeGrey), 0);
      const auto first = [](int x, int y, int) { return Slope(x, y, 0); };
      EXPECT_EQ(Farthest(Decoded(file(PNG_COLOR_TYPE_GRAY, bits, first)), first), 0);
      EXPECT_EQ(Farthest(Decoded(file(PNG_COLOR_TYPE_GRAY_ALPHA, bits, Slope)), first), 0);
      EXPECT_EQ(Farthest(Decoded(file(PNG_COLOR_TYPE_GRAY, bits, first), {.channels = 1}), first),
                0);
    }
    for (const int bits : {1, 2, 4}) {
      const int most = (1 << bits) - 1;
      const auto level = [most](int x, int y, int) { return (x + y) & most; };
      const auto light = [&](int x, int y, int) { return level(x, y, 0) * 255 / most; };
      EXPECT_EQ(Farthest(Decoded(file(PNG_COLOR_TYPE_GRAY, bits, level)), light), 0);
      const auto entry = [&](int x, int y, int) { return 255 - level(x, y, 0); };
      EXPECT_EQ(Farthest(Decoded(file(PNG_COLOR_TYPE_PALETTE, bits, level)), entry), 0);
    }
  }
}

TEST(PictureTest, TheSizeIsLookedAtFirst) {
  const std::string jpeg = MakeJpeg(40, 30, Slope);
  const std::string png = MakePng(40, 30, Slope);
  EXPECT_EQ(ErrorOf(jpeg, {.max_pixels = 1199}),
            "JPEG: size, expected at most 1199 pixels, got 40 x 30");
  EXPECT_EQ(ErrorOf(png, {.max_pixels = 1199}),
            "PNG: size, expected at most 1199 pixels, got 40 x 30");
  EXPECT_EQ(ErrorOf(png, {.max_pixels = 1200}), "no error");
  EXPECT_THAT(ErrorOf(MakePng(70000, 1, Slope)), HasSubstr("sides, expected at most 65535"));
}

TEST(PictureTest, SaysWhatIsWrong) {
  EXPECT_EQ(ErrorOf(""), "neither a JPEG nor a PNG: 0 bytes");
  EXPECT_EQ(ErrorOf("GIF89a"), "neither a JPEG nor a PNG: 6 bytes");
  const std::string jpeg = MakeJpeg(40, 30, Slope);
  const std::string png = MakePng(40, 30, Slope);
  EXPECT_THAT(ErrorOf(jpeg.substr(0, 3)), HasSubstr("JPEG: damaged or cut off: "));
  EXPECT_THAT(ErrorOf(jpeg.substr(0, jpeg.size() * 3 / 4)),
              HasSubstr("JPEG: damaged or cut off: Premature end of JPEG file"));
  EXPECT_EQ(ErrorOf(png.substr(0, png.size() / 2)), "PNG: damaged or cut off: the file ends early");
  std::string flipped = png;
  flipped[flipped.size() / 2] ^= 1;
  EXPECT_THAT(ErrorOf(flipped), HasSubstr("PNG: damaged or cut off: IDAT: "));
}

TEST(PictureTest, TurnsAJpegUprightWhenAsked) {
  const auto quarters = [](int x, int y, int) { return (x >= 16 ? 100 : 0) + (y >= 8 ? 50 : 0); };
  // The values of the upper left, upper right and lower left corner, upright.
  const std::vector<std::array<int, 3>> corners = {{0, 100, 50},   {100, 0, 150}, {150, 50, 100},
                                                   {50, 150, 0},   {0, 50, 100},  {50, 0, 150},
                                                   {150, 100, 50}, {100, 150, 0}};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const std::string file =
        MakeJpeg(32, 16, quarters, {.channels = 1, .orientation = orientation});
    const Picture turned = Decoded(file, {.upright = true});
    const auto& [upper_left, upper_right, lower_left] =
        corners[static_cast<size_t>(orientation - 1)];
    EXPECT_EQ(turned.width, orientation < 5 ? 32 : 16) << orientation;
    EXPECT_EQ(turned.file_height, orientation < 5 ? 16 : 32) << orientation;
    EXPECT_NEAR(At(turned, 1, 1), upper_left, 4) << orientation;
    EXPECT_NEAR(At(turned, turned.width - 2, 1), upper_right, 4) << orientation;
    EXPECT_NEAR(At(turned, 1, turned.height - 2), lower_left, 4) << orientation;
    EXPECT_EQ(Decoded(file).width, 32);
  }
}

TEST(PictureTest, AJpegMayBeDecodedSmaller) {
  const std::string file = MakeJpeg(101, 90, [](int x, int y, int) { return x + y; });
  for (const auto& [least, width] :
       std::vector<std::pair<int, int>>{{46, 101}, {45, 51}, {11, 13}}) {
    const Picture picture = Decoded(file, {.least_width = least, .least_height = least});
    EXPECT_EQ(picture.width, width);
    EXPECT_EQ(picture.file_width, 101);
    EXPECT_EQ(picture.true_width, width == 101 ? 101 : (width == 51 ? 50.5 : 101.0 / 8));
  }
}

/// What `damage` makes of a file is a picture or INVALID_ARGUMENT, and small.
void Survives(const std::string& file) {
  const auto picture = DecodePicture(file, {.max_pixels = 1 << 16, .upright = true});
  if (picture.ok()) {
    EXPECT_LE(picture->width * picture->height, 1 << 16);
    EXPECT_EQ(picture->channels, 3);
  } else {
    EXPECT_EQ(picture.status().code(), absl::StatusCode::kInvalidArgument) << picture.status();
  }
}

TEST(PictureTest, NoDamageEndsTheProcess) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(Format("seed {}", seed));
  std::mt19937 random(seed);
  const std::vector<std::string> files = {
      MakeJpeg(40, 24, Slope, {.orientation = 6}),
      MakeJpeg(40, 24, Slope, {.progressive = true}),
      MakeJpeg(24, 16, Slope, {.channels = 4, .ycck = true}),
      MakePng(40, 24, Slope),
      MakePng(40, 24, [](int x, int, int) { return x & 15; },
              {.type = PNG_COLOR_TYPE_PALETTE, .bits = 4, .interlaced = true}),
      MakePng(40, 24, Slope, {.type = PNG_COLOR_TYPE_RGB_ALPHA, .bits = 16}),
  };
  for (const std::string& file : files) {
    for (size_t size = 0; size < file.size(); ++size) Survives(file.substr(0, size));
    for (int trial = 0; trial < 1000; ++trial) {
      std::string damaged = file;
      for (unsigned flips = 1 + random() % 8; flips > 0; --flips) {
        damaged[random() % damaged.size()] = static_cast<char>(random());
      }
      Survives(damaged);
    }
  }
}

TEST(PictureTest, FewBytesMayNotAskForManyPassesOverThePixels) {
  std::vector<jpeg_scan_info> scans = {{1, {0}, 0, 0, 0, 0}};
  for (int k = 1; k < 64; ++k) scans.push_back({1, {0}, k, k, 0, 1});
  const auto file = [&] {
    return MakeJpeg(64, 64, Slope, {.channels = 1, .progressive = true, .scans = scans});
  };
  EXPECT_LE(Farthest(Decoded(file()), [](int x, int y, int) { return Slope(x, y, 0); }), 16);
  scans.push_back({1, {0}, 1, 1, 1, 0});
  EXPECT_EQ(ErrorOf(file()), "JPEG: damaged or cut off: too many scans");

  scans.resize(4);
  PixelBudget four(int64_t{4} * 64 * 64);
  EXPECT_EQ(ErrorOf(file(), {.budget = &four}), "no error");
  PixelBudget three(int64_t{3} * 64 * 64);
  EXPECT_EQ(ErrorOf(file(), {.budget = &three}), "JPEG: damaged or cut off: too many scans");
}

TEST(PictureTest, TheWorkOfSeveralPicturesIsBounded) {
  PixelBudget budget(int64_t{3} * 40 * 30);
  EXPECT_EQ(ErrorOf(MakeJpeg(40, 30, Slope), {.budget = &budget}), "no error");
  EXPECT_EQ(ErrorOf(MakePng(80, 30, Slope), {.budget = &budget}), "no error");
  EXPECT_EQ(ErrorOf(MakePng(1, 1, Slope), {.budget = &budget}),
            "PNG: size, 1 x 1: too many pixels in one request");
}

TEST(PictureTest, TakesMemoryForPixelsAndCoefficients) {
  const size_t before = DecodeMemory::used();
  {
    const Picture baseline = Decoded(MakeJpeg(640, 480, Slope));
    EXPECT_GE(DecodeMemory::used() - before, 3U * 640 * 480);
    EXPECT_LT(DecodeMemory::used() - before, 4U * 640 * 480);
  }
  {
    const Picture progressive = Decoded(MakeJpeg(640, 480, Slope, {.progressive = true}));
    // Two of the three components have a quarter of the pixels.
    EXPECT_GE(DecodeMemory::used() - before, 3U * 640 * 480 + 2U * 640 * 480 * 3 / 2);
  }
  {
    const Picture turned =
        Decoded(MakeJpeg(640, 480, Slope, {.orientation = 6}), {.upright = true});
    EXPECT_GE(DecodeMemory::used() - before, 2U * 3 * 640 * 480);
  }
  {
    const Picture png = Decoded(MakePng(640, 480, Slope));
    EXPECT_EQ(DecodeMemory::used() - before, 3U * 640 * 480);
  }
  ErrorOf(MakeJpeg(640, 480, Slope).substr(0, 2000));
  EXPECT_EQ(DecodeMemory::used(), before);
}

TEST(PictureTest, ASequentialJpegMayGiveItsScanAnyBounds) {
  std::string file = MakeJpeg(40, 30, Slope);
  const size_t scan = file.find("\xff\xda");
  ASSERT_NE(scan, std::string::npos);
  // Behind the length and three components, two bytes each.
  ASSERT_EQ(file[scan + 12], 63);
  file[scan + 12] = 0;
  EXPECT_LE(Farthest(Decoded(file), Slope), 8);
}

}  // namespace picture_test
}  // namespace octet
