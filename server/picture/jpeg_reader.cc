#include "server/picture/jpeg_reader.h"

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <utility>
#include <vector>

// After what they need.
#include <jerror.h>
#include <jpeglib.h>

#include "engine/tensor/status.h"
#include "server/picture/exif.h"

namespace octet {
namespace {

/// Passes of a progressive file; encoders write about ten. Each goes over all pixels again, and is taken from the budget.
constexpr int kMaxScans = 64;

/// What is odd about a file whose pixels are all there.
bool IsHarmless(int warning) {
  return warning == JWRN_EXTRANEOUS_DATA || warning == JWRN_ADOBE_XFORM ||
         warning == JWRN_JFIF_MAJOR || warning == JWRN_TOO_MUCH_DATA ||
         warning == JWRN_NOT_SEQUENTIAL;
}

/// Owns libjpeg's structures. An error jumps to the setjmp of the step that is under way: each step is a function without
/// objects that would have to be destroyed.
class JpegReader {
 public:
  explicit JpegReader(const DecodeOptions& options)
      : budget_(options.budget), limits_(options.limits) {
    jpeg_.err = jpeg_std_error(&errors_);
    jpeg_.client_data = this;
    errors_.error_exit = OnError;
    errors_.emit_message = OnMessage;
    progress_.progress_monitor = OnProgress;
  }
  ~JpegReader() { jpeg_destroy_decompress(&jpeg_); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  jpeg_decompress_struct& jpeg() { return jpeg_; }
  /// Requires: ReadHeader. More than one, or a part of one: all coefficients are kept.
  bool has_scans() { return jpeg_has_multiple_scans(&jpeg_) != FALSE; }
  absl::Status status() const {
    if (!given_up_.ok()) return given_up_;
    if (out_of_memory_) return absl::ResourceExhaustedError("out of memory to decode a JPEG");
    return InvalidArgument("JPEG: damaged or cut off: {}", std::string_view(error_.data()));
  }

  bool ReadHeader(std::string_view bytes, bool exif) {
    if (setjmp(jump_) != 0) return false;  // NOLINT(*-setjmp-longjmp)
    jpeg_create_decompress(&jpeg_);
    jpeg_.progress = &progress_;
    jpeg_mem_src(&jpeg_, reinterpret_cast<const unsigned char*>(bytes.data()),  // NOLINT
                 bytes.size());
    if (exif) jpeg_save_markers(&jpeg_, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&jpeg_, TRUE);
    return true;
  }

  /// Decodes `denominator` times smaller.
  bool Start(J_COLOR_SPACE colours, unsigned denominator) {
    if (setjmp(jump_) != 0) return false;  // NOLINT(*-setjmp-longjmp)
    jpeg_.out_color_space = colours;
    jpeg_.scale_num = 1;
    jpeg_.scale_denom = denominator;
    jpeg_start_decompress(&jpeg_);
    return true;
  }

  bool ReadRows(uint8_t* pixels, size_t stride) {
    if (setjmp(jump_) != 0) return false;  // NOLINT(*-setjmp-longjmp)
    while (jpeg_.output_scanline < jpeg_.output_height) {
      JSAMPROW row = pixels + stride * jpeg_.output_scanline;
      jpeg_read_scanlines(&jpeg_, &row, 1);
    }
    return true;
  }

 private:
  static JpegReader& Self(j_common_ptr jpeg) {
    return *static_cast<JpegReader*>(jpeg->client_data);
  }
  [[noreturn]] static void OnError(j_common_ptr jpeg) {
    JpegReader& self = Self(jpeg);
    self.out_of_memory_ = jpeg->err->msg_code == JERR_OUT_OF_MEMORY;
    std::array<char, JMSG_LENGTH_MAX> text = {};
    jpeg->err->format_message(jpeg, text.data());
    self.error_ = text;
    std::longjmp(self.jump_, 1);  // NOLINT(*-setjmp-longjmp)
  }
  /// A warning means that pixels are made up: by libjpeg's own measure the file is damaged.
  static void OnMessage(j_common_ptr jpeg, int level) {
    if (level < 0 && !IsHarmless(jpeg->err->msg_code)) OnError(jpeg);
  }
  /// Called for each row of pixels, and for each row of blocks of a pass that gives none.
  static void OnProgress(j_common_ptr jpeg) {
    JpegReader& self = Self(jpeg);
    if (++self.rows_ % kRowsPerLook == 0) {
      self.given_up_ = self.limits_.Check();
      if (!self.given_up_.ok()) std::longjmp(self.jump_, 1);  // NOLINT(*-setjmp-longjmp)
    }
    bool fits = self.jpeg_.input_scan_number <= kMaxScans;
    for (; fits && self.scans_ < self.jpeg_.input_scan_number; ++self.scans_) {
      fits = self.budget_ == nullptr ||
             self.budget_->Take(uint64_t{self.jpeg_.image_width} * self.jpeg_.image_height);
    }
    if (fits) return;
    constexpr std::string_view kText = "too many scans";
    self.error_ = {};
    std::ranges::copy(kText, self.error_.begin());
    std::longjmp(self.jump_, 1);  // NOLINT(*-setjmp-longjmp)
  }

  jpeg_decompress_struct jpeg_ = {};
  jpeg_error_mgr errors_ = {};
  jpeg_progress_mgr progress_ = {};
  PixelBudget* const budget_;
  const RunLimits limits_;
  absl::Status given_up_;
  unsigned rows_ = 0;
  int scans_ = 1;  ///< That the budget has given.
  std::jmp_buf jump_ = {};
  std::array<char, JMSG_LENGTH_MAX> error_ = {};
  bool out_of_memory_ = false;
};

/// How many times smaller it may be decoded. `lies`: its rows become columns.
unsigned DenominatorFor(const jpeg_decompress_struct& jpeg, const DecodeOptions& options,
                        bool lies) {
  const auto width = static_cast<unsigned>(lies ? options.least_height : options.least_width);
  const auto height = static_cast<unsigned>(lies ? options.least_width : options.least_height);
  for (const unsigned denominator : {8U, 4U, 2U}) {
    if (jpeg.image_width / denominator >= width && jpeg.image_height / denominator >= height) {
      return denominator;
    }
  }
  return 1;
}

/// a * b / 255, rounded.
int Times(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

/// CMYK as Adobe writes it, inverted, to RGB or grey, in place. `count`: pixels.
void FromCmyk(uint8_t* pixels, size_t count, int channels) {
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* from = pixels + 4 * i;
    const int light = from[3];
    std::array<int, 3> rgb;
    for (size_t c = 0; c < 3; ++c) {
      rgb[c] = std::clamp(light - Times(255 - from[c], light), 0, 255);
    }
    if (channels == 1) {
      pixels[i] = GreyOf(rgb[0], rgb[1], rgb[2]);
      continue;
    }
    for (size_t c = 0; c < 3; ++c) pixels[3 * i + c] = static_cast<uint8_t>(rgb[c]);
  }
}

/// What libjpeg is asked for. Of colour it makes no grey that is PIL's, except of YCbCr, where both take Y.
J_COLOR_SPACE ColoursFor(const jpeg_decompress_struct& jpeg, int channels) {
  if (jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK) return JCS_CMYK;
  return channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
}

/// Of the pixels, twice when they are to be turned, and of all coefficients when there is more than one scan.
size_t BytesFor(JpegReader& reader, int channels, unsigned denominator, bool turned) {
  const jpeg_decompress_struct& jpeg = reader.jpeg();
  const size_t pixels =
      (size_t{jpeg.image_width} / denominator + 1) * (size_t{jpeg.image_height} / denominator + 1);
  size_t bytes = pixels * static_cast<size_t>(channels) * (turned ? 2 : 1);
  if (!reader.has_scans()) return bytes;
  for (int i = 0; i < jpeg.num_components; ++i) {
    const jpeg_component_info& component = jpeg.comp_info[i];
    bytes += size_t{component.width_in_blocks} * component.height_in_blocks * sizeof(JBLOCK);
  }
  return bytes;
}

}  // namespace

absl::StatusOr<Picture> ReadJpeg(std::string_view bytes, const DecodeOptions& options) {
  JpegReader reader(options);
  if (!reader.ReadHeader(bytes, options.upright)) return reader.status();
  const jpeg_decompress_struct& jpeg = reader.jpeg();
  OCTET_RETURN_IF_ERROR(CheckPictureSize("JPEG", jpeg.image_width, jpeg.image_height, options));
  int orientation = 1;
  for (auto* marker = jpeg.marker_list; marker != nullptr; marker = marker->next) {
    const std::span<const uint8_t> data(marker->data, marker->data_length);
    if (const int told = ExifOrientation(data); told != 0) orientation = told;
  }
  const unsigned denominator = DenominatorFor(jpeg, options, orientation >= 5);
  const J_COLOR_SPACE colours = ColoursFor(jpeg, options.channels);
  Picture picture;
  picture.memory = DecodeMemory(
      BytesFor(reader, colours == JCS_CMYK ? 4 : options.channels, denominator, orientation != 1));
  if (!reader.Start(colours, denominator)) return reader.status();

  picture.width = static_cast<int>(jpeg.output_width);
  picture.height = static_cast<int>(jpeg.output_height);
  picture.channels = jpeg.output_components;
  picture.file_width = static_cast<int>(jpeg.image_width);
  picture.file_height = static_cast<int>(jpeg.image_height);
  picture.true_width = static_cast<double>(jpeg.image_width) / denominator;
  picture.true_height = static_cast<double>(jpeg.image_height) / denominator;
  const size_t count = static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height);
  picture.pixels = AllocatePixels(count * static_cast<size_t>(picture.channels));
  if (!reader.ReadRows(picture.pixels.get(), picture.stride())) return reader.status();
  if (jpeg.out_color_space == JCS_CMYK) {
    FromCmyk(picture.pixels.get(), count, options.channels);
    picture.channels = options.channels;
  }
  Turn(picture, orientation);
  return picture;
}

}  // namespace octet
