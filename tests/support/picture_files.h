// Small JPEG and PNG files, written by the libraries that read them.
#pragma once

#include <jpeglib.h>
#include <png.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace octet {

/// The value of a channel of a pixel.
using PixelOf = std::function<int(int x, int y, int channel)>;

struct JpegForm {
  int channels = 3;  ///< 1 grey, 3 colours, 4 CMYK as Adobe writes it (inverted).
  bool progressive = false;
  bool ycck = false;    ///< Of 4 channels.
  int orientation = 0;  ///< EXIF's; 0 = none.
  int quality = 95;
  std::vector<jpeg_scan_info> scans = {};  ///< Of a progressive one; empty = as usual.
};

inline std::string MakeJpeg(int width, int height, const PixelOf& pixel,
                            const JpegForm& form = {}) {
  jpeg_compress_struct jpeg = {};
  jpeg_error_mgr errors = {};
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;  // NOLINT(google-runtime-int)
  jpeg_mem_dest(&jpeg, &bytes, &size);
  jpeg.image_width = static_cast<JDIMENSION>(width);
  jpeg.image_height = static_cast<JDIMENSION>(height);
  jpeg.input_components = form.channels;
  jpeg.in_color_space =
      form.channels == 1 ? JCS_GRAYSCALE : (form.channels == 3 ? JCS_RGB : JCS_CMYK);
  jpeg_set_defaults(&jpeg);
  if (form.ycck) jpeg_set_colorspace(&jpeg, JCS_YCCK);
  jpeg_set_quality(&jpeg, form.quality, TRUE);
  if (form.progressive) jpeg_simple_progression(&jpeg);
  if (!form.scans.empty()) {
    jpeg.scan_info = form.scans.data();
    jpeg.num_scans = static_cast<int>(form.scans.size());
  }
  jpeg_start_compress(&jpeg, TRUE);
  if (form.orientation != 0) {
    std::array<unsigned char, 32> exif = {'E', 'x', 'i', 'f', 0, 0,  'M', 'M', 0, 42, 0, 0,
                                          0,   8,   0,   1,   1, 18, 0,   3,   0, 0,  0, 1};
    exif[25] = static_cast<unsigned char>(form.orientation);
    jpeg_write_marker(&jpeg, JPEG_APP0 + 1, exif.data(), exif.size());
  }
  std::vector<unsigned char> row(static_cast<size_t>(width * form.channels));
  for (int y = 0; y < height; ++y) {
    for (int i = 0; i < width * form.channels; ++i) {
      row[static_cast<size_t>(i)] =
          static_cast<unsigned char>(pixel(i / form.channels, y, i % form.channels));
    }
    JSAMPROW rows = row.data();
    jpeg_write_scanlines(&jpeg, &rows, 1);
  }
  jpeg_finish_compress(&jpeg);
  std::string file(reinterpret_cast<char*>(bytes), size);  // NOLINT(*-reinterpret-cast)
  jpeg_destroy_compress(&jpeg);
  std::free(bytes);
  return file;
}

struct PngForm {
  int type = PNG_COLOR_TYPE_RGB;
  int bits = 8;
  bool interlaced = false;
};

/// Channels of 16 bits hold the value in their upper and 0x55 in their lower half. The palette is grey, 255 - index.
inline std::string MakePng(int width, int height, const PixelOf& pixel, const PngForm& form = {}) {
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  std::string file;
  png_set_write_fn(
      png, &file,
      [](png_structp to, png_bytep bytes, size_t count) {
        static_cast<std::string*>(png_get_io_ptr(to))
            ->append(reinterpret_cast<char*>(bytes), count);  // NOLINT(*-reinterpret-cast)
      },
      nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height),
               form.bits, form.type, form.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, 0,
               0);
  std::array<png_color, 256> palette;
  for (size_t i = 0; i < palette.size(); ++i) {
    const auto value = static_cast<png_byte>(255 - i);
    palette[i] = {value, value, value};
  }
  if (form.type == PNG_COLOR_TYPE_PALETTE) png_set_PLTE(png, info, palette.data(), 1 << form.bits);
  png_write_info(png, info);
  png_set_packing(png);  // one sample a byte
  const int channels = png_get_channels(png, info);
  const int sample = form.bits == 16 ? 2 : 1;
  std::vector<std::vector<png_byte>> rows(static_cast<size_t>(height));
  std::vector<png_bytep> pointers;
  for (int y = 0; y < height; ++y) {
    auto& row = rows[static_cast<size_t>(y)];
    for (int i = 0; i < width * channels; ++i) {
      row.push_back(static_cast<png_byte>(pixel(i / channels, y, i % channels)));
      if (sample == 2) row.push_back(0x55);
    }
    pointers.push_back(row.data());
  }
  png_write_image(png, pointers.data());
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  return file;
}

}  // namespace octet
