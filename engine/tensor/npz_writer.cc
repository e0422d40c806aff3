#include "engine/tensor/npz_writer.h"

#include <unistd.h>
#include <zip.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// NumPy's name for the element type; nullopt when it has none. Strings are of bytes and get their length elsewhere.
std::optional<std::string_view> DescrOf(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return "|b1";
    case DType::kU8:
      return "|u1";
    case DType::kI8:
      return "|i1";
    case DType::kU16:
      return "<u2";
    case DType::kI16:
      return "<i2";
    case DType::kU32:
      return "<u4";
    case DType::kI32:
      return "<i4";
    case DType::kU64:
      return "<u8";
    case DType::kI64:
      return "<i8";
    case DType::kF16:
      return "<f2";
    case DType::kF32:
      return "<f4";
    case DType::kF64:
      return "<f8";
    case DType::kString:
      return "|S";
    case DType::kBF16:
    case DType::kUndefined:
      break;
  }
  return std::nullopt;
}

std::string_view TextAt(const ConstTensorView& piece, int64_t element) {
  return piece.data == nullptr ? std::string_view() : piece.as<std::string_view>()[element];
}

// The bytes of one .npy member, read once from the front.
class NpyMember {
 public:
  explicit NpyMember(const NpzArray& array) : pieces_(array.pieces) {
    const TensorSpec& first = pieces_.front().spec;
    Shape shape = first.shape;
    if (shape.rank() > 0) shape[0] = 0;
    for (const ConstTensorView& piece : pieces_) {
      if (shape.rank() > 0) shape[0] += piece.shape()[0];
      if (first.dtype != DType::kString) continue;
      for (int64_t i = 0; i < piece.elements(); ++i) {
        width_ = std::max(width_, TextAt(piece, i).size());
      }
    }
    WriteHeader(first.dtype, shape);
    const size_t element_bytes = first.dtype == DType::kString ? width_ : SizeOf(first.dtype);
    bytes_ = header_.size() + static_cast<size_t>(shape.elements()) * element_bytes;
    run_ = {header_.data(), header_.size()};
  }

  size_t bytes() const { return bytes_; }

  // Writes the next bytes to `dst`, at most `size`; returns how many, 0 at the end.
  size_t Read(char* dst, size_t size) {
    size_t done = 0;
    while (done < size && (run_.bytes > 0 || NextRun())) {
      const size_t bytes = std::min(size - done, run_.bytes);
      if (run_.data == nullptr) {
        std::memset(dst + done, 0, bytes);
      } else if (bytes > 0) {
        std::memcpy(dst + done, run_.data, bytes);
        run_.data += bytes;
      }
      run_.bytes -= bytes;
      done += bytes;
    }
    return done;
  }

 private:
  // Bytes that lie together; zeros where there is no data.
  struct Run {
    const char* data = nullptr;
    size_t bytes = 0;
  };

  void WriteHeader(DType dtype, const Shape& shape) {
    std::string extents;
    for (const int64_t extent : shape) extents += Format("{}, ", extent);
    std::string descr(*DescrOf(dtype));
    if (dtype == DType::kString) descr += std::to_string(width_);
    std::string text =
        Format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr, extents);
    // Spaces up to a multiple of 64, so that a mapped file's elements are aligned.
    constexpr size_t kPrefix = 10;
    text.append(63 - (kPrefix + text.size()) % 64, ' ');
    text += '\n';
    header_ = std::string("\x93NUMPY\1\0", 8);
    header_ += static_cast<char>(text.size() & 0xff);
    header_ += static_cast<char>(text.size() >> 8);
    header_ += text;
  }

  // False at the end. A run may be empty.
  bool NextRun() {
    while (piece_ < pieces_.size()) {
      const ConstTensorView& piece = pieces_[piece_];
      if (piece.dtype() != DType::kString) {
        ++piece_;
        run_ = {static_cast<const char*>(piece.data), piece.bytes()};
        return true;
      }
      if (element_ == piece.elements()) {
        ++piece_;
        element_ = 0;
        continue;
      }
      const std::string_view text = TextAt(piece, element_);
      run_ = padding_ ? Run{nullptr, width_ - text.size()} : Run{text.data(), text.size()};
      if (padding_) ++element_;
      padding_ = !padding_;
      return true;
    }
    return false;
  }

  const std::span<const ConstTensorView> pieces_;
  std::string header_;
  size_t width_ = 1;  // Of a string: NumPy knows none of no length.
  size_t bytes_ = 0;
  size_t piece_ = 0;
  int64_t element_ = 0;
  bool padding_ = false;
  Run run_;
};

// libzip's view of a member.
zip_int64_t ServeMember(void* user, void* data, zip_uint64_t length, zip_source_cmd_t command) {
  auto* member = static_cast<NpyMember*>(user);
  switch (command) {
    case ZIP_SOURCE_SUPPORTS:
      return ZIP_SOURCE_SUPPORTS_READABLE;
    case ZIP_SOURCE_READ:
      return static_cast<zip_int64_t>(member->Read(static_cast<char*>(data), length));
    case ZIP_SOURCE_STAT: {
      auto* stat = static_cast<zip_stat_t*>(data);
      zip_stat_init(stat);
      stat->valid = ZIP_STAT_SIZE;
      stat->size = member->bytes();
      return sizeof(zip_stat_t);
    }
    case ZIP_SOURCE_ERROR:
      std::memset(data, 0, 2 * sizeof(int));
      return 2 * sizeof(int);
    default:  // Open, close and free have nothing to do: a member is read once.
      return 0;
  }
}

// The file that libzip writes an archive to: open, and empty.
struct ArchiveFile {
  int fd = -1;
  int error = 0;  ///< errno of what failed.

  zip_int64_t Failed() {
    error = errno;
    return -1;
  }

  zip_int64_t Write(const char* bytes, zip_uint64_t size) {
    for (zip_uint64_t done = 0; done < size;) {
      const ssize_t written = ::write(fd, bytes + done, size - done);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return Failed();
      done += static_cast<zip_uint64_t>(written);
    }
    return static_cast<zip_int64_t>(size);
  }

  zip_int64_t Seek(zip_int64_t offset, int whence) {
    const off_t at = ::lseek(fd, offset, whence);
    return at < 0 ? Failed() : at;
  }
};

// libzip's view of it. By a path libzip would write a file of its own, which stays when the process is killed.
zip_int64_t ServeArchive(void* user, void* data, zip_uint64_t length, zip_source_cmd_t command) {
  auto* file = static_cast<ArchiveFile*>(user);
  switch (command) {
    case ZIP_SOURCE_SUPPORTS:
      return ZIP_SOURCE_SUPPORTS_WRITABLE;
    case ZIP_SOURCE_STAT: {
      auto* stat = static_cast<zip_stat_t*>(data);
      zip_stat_init(stat);
      stat->valid = ZIP_STAT_SIZE;
      stat->size = 0;
      return sizeof(zip_stat_t);
    }
    case ZIP_SOURCE_WRITE:
      return file->Write(static_cast<const char*>(data), length);
    case ZIP_SOURCE_SEEK_WRITE: {
      const auto* to = ZIP_SOURCE_GET_ARGS(zip_source_args_seek_t, data, length, nullptr);
      if (to == nullptr) return -1;
      return file->Seek(to->offset, to->whence) < 0 ? -1 : 0;
    }
    case ZIP_SOURCE_TELL_WRITE:
      return file->Seek(0, SEEK_CUR);
    case ZIP_SOURCE_ERROR: {
      const int codes[2] = {ZIP_ER_WRITE, file->error};
      std::memcpy(data, codes, sizeof(codes));
      return sizeof(codes);
    }
    default:  // Whether it is begun, kept or thrown away is PendingFile's business, and nothing is read.
      return 0;
  }
}

struct ZipDiscarder {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};

absl::Status AddMember(zip_t* archive, const std::string& name, NpyMember& member) {
  zip_source_t* source = zip_source_function(archive, ServeMember, &member);
  if (source == nullptr) return absl::InvalidArgumentError(zip_strerror(archive));
  const zip_int64_t index =
      zip_file_add(archive, (name + ".npy").c_str(), source, ZIP_FL_ENC_UTF_8);
  if (index < 0) {
    zip_source_free(source);
    return absl::InvalidArgumentError(zip_strerror(archive));
  }
  if (zip_set_file_compression(archive, static_cast<zip_uint64_t>(index), ZIP_CM_STORE, 0) != 0)
    return absl::InvalidArgumentError(zip_strerror(archive));
  return absl::OkStatus();
}

absl::Status WriteArchive(const std::string& path, int fd, std::span<const NpzArray> arrays) {
  ArchiveFile file{fd};
  std::vector<std::unique_ptr<NpyMember>> members;  // Both outlive the archive.
  zip_source_t* place = zip_source_function_create(ServeArchive, &file, nullptr);
  std::unique_ptr<zip_t, ZipDiscarder> archive(
      place == nullptr ? nullptr : zip_open_from_source(place, ZIP_CREATE | ZIP_TRUNCATE, nullptr));
  if (archive == nullptr) {
    zip_source_free(place);
    return MakeError(absl::StatusCode::kResourceExhausted, "cannot write {}: no memory for libzip",
                     path);
  }
  // Without it there would be no file.
  zip_set_archive_flag(archive.get(), ZIP_AFL_CREATE_OR_KEEP_FILE_FOR_EMPTY_ARCHIVE, 1);
  for (const NpzArray& array : arrays) {
    const absl::Status added = AddMember(archive.get(), array.name,
                                         *members.emplace_back(std::make_unique<NpyMember>(array)));
    if (!added.ok())
      return InvalidArgument("cannot write {}: array '{}': {}", path, array.name, Message(added));
  }
  if (zip_close(archive.get()) != 0) {
    if (file.error != 0) return SystemError("write", path, file.error);
    return InvalidArgument("cannot write {}: {}", path, zip_strerror(archive.get()));
  }
  archive.release();  // NOLINT(bugprone-unused-return-value): zip_close freed it
  return absl::OkStatus();
}

}  // namespace

bool NpzHolds(DType dtype) { return DescrOf(dtype).has_value(); }

absl::Status WriteNpz(const std::string& path, std::span<const NpzArray> arrays, mode_t mode) {
  PendingFile file(path);
  OCTET_RETURN_IF_ERROR(file.Open(mode));
  OCTET_RETURN_IF_ERROR(WriteArchive(path, file.fd(), arrays));
  return file.Commit();
}

}  // namespace octet
