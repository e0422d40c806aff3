// A POSIX shared memory object as a client makes one.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <span>
#include <string>

#include <gtest/gtest.h>
#include <sys/mman.h>

namespace octet {

/// Exists, with zeros, until destroyed.
class SharedObject {
 public:
  explicit SharedObject(size_t bytes) {
    static int made = 0;
    key_ = "/octet_test_" + std::to_string(getpid()) + "_" + std::to_string(made++);
    fd_ = shm_open(key_.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    EXPECT_GE(fd_, 0);
    Resize(bytes);
  }
  ~SharedObject() {
    close(fd_);
    shm_unlink(key_.c_str());
  }
  SharedObject(const SharedObject&) = delete;
  SharedObject& operator=(const SharedObject&) = delete;

  const std::string& key() const { return key_; }
  void Resize(size_t bytes) const { EXPECT_EQ(ftruncate(fd_, static_cast<off_t>(bytes)), 0); }
  void Write(size_t offset, std::span<const std::byte> data) const {
    EXPECT_EQ(pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(data.size()));
  }
  /// As much as there is of it.
  std::string Read(size_t offset, size_t bytes) const {
    std::string data(bytes, 'x');
    const ssize_t got = pread(fd_, data.data(), bytes, static_cast<off_t>(offset));
    data.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return data;
  }

 private:
  std::string key_;
  int fd_ = -1;
};

}  // namespace octet
