#include "server/picture/png_reader.h"

#include <png.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstring>
#include <vector>

#include "engine/tensor/status.h"

namespace octet {
namespace {

/// The most memory that a chunk beside the pixels may take once it is unpacked.
constexpr png_alloc_size_t kMaxChunkBytes = size_t{1} << 20;

/// Owns libpng's structures. An error jumps to the setjmp of the step that is under way: each step is a function without
/// objects that would have to be destroyed.
class PngReader {
 public:
  PngReader(std::string_view bytes, const RunLimits& limits) : left_(bytes), limits_(limits) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, OnError, OnWarning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  bool made() const { return info_ != nullptr; }
  uint32_t width() const { return png_get_image_width(png_, info_); }
  uint32_t height() const { return png_get_image_height(png_, info_); }
  bool grey() const { return (png_get_color_type(png_, info_) & PNG_COLOR_MASK_COLOR) == 0; }
  size_t row_bytes() const { return png_get_rowbytes(png_, info_); }
  absl::Status status() const {
    if (!given_up_.ok()) return given_up_;
    return InvalidArgument("PNG: damaged or cut off: {}", std::string_view(error_.data()));
  }

  /// The chunks in front of the pixels.
  bool ReadHeader() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;  // NOLINT(*-setjmp-longjmp)
    png_set_read_fn(png_, this, OnRead);
    png_set_read_status_fn(png_, OnRow);
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // told in our own words
    png_set_chunk_malloc_max(png_, kMaxChunkBytes);
    png_set_chunk_cache_max(png_, 16);
    png_read_info(png_, info_);
    return true;
  }

  /// Asks for 8-bit pixels of one channel, or of three, without alpha.
  bool ChooseForm(bool colour) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;  // NOLINT(*-setjmp-longjmp)
    png_set_strip_16(png_);
    png_set_strip_alpha(png_);
    png_set_packing(png_);
    const png_byte type = png_get_color_type(png_, info_);
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png_);
    if (grey()) png_set_expand_gray_1_2_4_to_8(png_);
    if (grey() && colour) png_set_gray_to_rgb(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  /// What is behind the pixels is not looked at.
  bool ReadPixels(png_bytep* rows) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;  // NOLINT(*-setjmp-longjmp)
    png_read_image(png_, rows);
    return true;
  }

 private:
  [[noreturn]] static void OnError(png_structp png, png_const_charp message) {
    auto& self = *static_cast<PngReader*>(png_get_error_ptr(png));
    std::strncpy(self.error_.data(), message, self.error_.size() - 1);
    png_longjmp(png, 1);
  }
  static void OnWarning(png_structp, png_const_charp) {}
  /// Called for each row of each pass.
  static void OnRow(png_structp png, png_uint_32, int) {
    auto& self = *static_cast<PngReader*>(png_get_error_ptr(png));
    if (++self.rows_ % kRowsPerLook != 0) return;
    self.given_up_ = self.limits_.Check();
    if (!self.given_up_.ok()) png_longjmp(png, 1);
  }
  static void OnRead(png_structp png, png_bytep to, size_t count) {
    auto& self = *static_cast<PngReader*>(png_get_io_ptr(png));
    if (count > self.left_.size()) png_error(png, "the file ends early");
    std::memcpy(to, self.left_.data(), count);
    self.left_.remove_prefix(count);
  }

  std::string_view left_;
  const RunLimits limits_;
  absl::Status given_up_;
  unsigned rows_ = 0;
  std::array<char, 128> error_ = {};
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

/// RGB to grey, in place: the pixels get closer together.
void ToGrey(Picture& picture) {
  const size_t count = static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height);
  uint8_t* pixels = picture.pixels.get();
  for (size_t i = 0; i < count; ++i) {
    pixels[i] = GreyOf(pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]);
  }
  picture.channels = 1;
}

}  // namespace

absl::StatusOr<Picture> ReadPng(std::string_view bytes, const DecodeOptions& options) {
  PngReader reader(bytes, options.limits);
  if (!reader.made()) return absl::ResourceExhaustedError("out of memory to decode a PNG");
  if (!reader.ReadHeader()) return reader.status();
  OCTET_RETURN_IF_ERROR(CheckPictureSize("PNG", reader.width(), reader.height(), options));
  const bool colour = options.channels == 3;
  const bool reads_grey = !colour && reader.grey();
  if (!reader.ChooseForm(colour)) return reader.status();

  Picture picture;
  picture.width = picture.file_width = static_cast<int>(reader.width());
  picture.height = picture.file_height = static_cast<int>(reader.height());
  picture.true_width = picture.width;
  picture.true_height = picture.height;
  picture.channels = reads_grey ? 1 : 3;
  if (reader.row_bytes() != picture.stride()) {
    return Internal("PNG: {} bytes in a row of {} pixels", reader.row_bytes(), picture.width);
  }
  const auto height = static_cast<size_t>(picture.height);
  picture.memory = DecodeMemory(picture.stride() * height);
  picture.pixels = AllocatePixels(picture.stride() * height);
  std::vector<png_bytep> rows(height);
  for (size_t y = 0; y < height; ++y) rows[y] = picture.pixels.get() + y * picture.stride();
  if (!reader.ReadPixels(rows.data())) return reader.status();
  if (!colour && !reads_grey) ToGrey(picture);
  return picture;
}

}  // namespace octet
