#include "server/picture/resample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

namespace octet {
namespace resample_test {

using ::testing::Each;
using ::testing::ElementsAre;

Picture Filled(int width, int height, int channels, const std::function<int(size_t)>& value) {
  Picture picture = {.width = width,
                     .height = height,
                     .channels = channels,
                     .true_width = static_cast<double>(width),
                     .true_height = static_cast<double>(height),
                     .file_width = width,
                     .file_height = height};
  const auto count = static_cast<size_t>(width * height * channels);
  picture.pixels = AllocatePixels(count);
  for (size_t i = 0; i < count; ++i) picture.pixels[i] = static_cast<uint8_t>(value(i));
  return picture;
}

TEST(ResampleTest, TheSameSizeIsTheSamePicture) {
  const Picture picture = Filled(7, 5, 3, [](size_t i) { return static_cast<int>(i * 37 % 256); });
  const std::vector<uint8_t> pixels = Resample(picture, Stretched(7, 5));
  EXPECT_TRUE(std::equal(pixels.begin(), pixels.end(), picture.pixels.get()));
}

TEST(ResampleTest, FewerPixelsAreMeansOfAllThatTheyReplace) {
  const Picture row = Filled(8, 1, 1, [](size_t i) { return static_cast<int>(i) * 16; });
  // Triangles of two source pixels each way around 1, 3, 5, 7: weights 1 3 3 1, less at the edges.
  EXPECT_THAT(Resample(row, Stretched(4, 1)), ElementsAre(11, 40, 72, 101));
}

TEST(ResampleTest, MorePixelsLieBetween) {
  const Picture row = Filled(2, 1, 1, [](size_t i) { return i == 0 ? 0 : 100; });
  EXPECT_THAT(Resample(row, Stretched(4, 1)), ElementsAre(0, 25, 75, 100));
}

TEST(ResampleTest, AWindowIsCutOutOfTheWhole) {
  const Picture picture =
      Filled(60, 40, 3, [](size_t i) { return static_cast<int>(i * i * 31 % 256); });
  const Window window = Centred(picture, 20, 14, 17);
  EXPECT_EQ(
      window,
      (Window{
          .full_width = 30, .full_height = 20, .left = 8, .top = 2, .width = 14, .height = 17}));
  const std::vector<uint8_t> whole = Resample(picture, Stretched(30, 20));
  const std::vector<uint8_t> part = Resample(picture, window);
  for (size_t y = 0; y < 17; ++y) {
    EXPECT_TRUE(
        std::equal(&part[y * 14 * 3], &part[y * 14 * 3] + 14 * 3, &whole[((y + 2) * 30 + 8) * 3]))
        << y;
  }
}

TEST(ResampleTest, LongAndThinPicturesTakeNoMoreThanTheirWindow) {
  const Picture thin = Filled(1, 65535, 1, [](size_t) { return 77; });
  const std::vector<uint8_t> middle = Resample(thin, Centred(thin, 16384, 224, 224));
  EXPECT_EQ(middle.size(), 224U * 224U);
  EXPECT_THAT(middle, Each(77));
  EXPECT_THAT(Resample(thin, Stretched(224, 224)), Each(77));
}

TEST(ResampleTest, ALongPictureTakesNoMemoryForAllOfItsRows) {
  const Picture thin = Filled(1, 65535, 3, [](size_t) { return 77; });
  const auto peak_kib = [] {
    rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  const auto before = peak_kib();
  EXPECT_THAT(Resample(thin, Stretched(1280, 16)), Each(77));
  EXPECT_LT(peak_kib() - before, 64 << 10);  // of all rows, 1280 wide, it would be 240 MiB
}

TEST(ResampleTest, AFractionOfAPixelIsNoPartOfThePicture) {
  Picture row = Filled(3, 1, 1, [](size_t i) { return i == 2 ? 255 : 10; });
  row.true_width = 2;
  EXPECT_THAT(Resample(row, Stretched(1, 1)), ElementsAre(testing::Lt(90)));
}

}  // namespace resample_test
}  // namespace octet
