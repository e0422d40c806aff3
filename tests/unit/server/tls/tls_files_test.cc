#include "server/tls/tls_files.h"

#include <chrono>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/tls_identity.h"

namespace octet {
namespace tls_files_test {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string ErrorOf(const TlsPaths& paths) {
  const auto material = LoadTlsFiles(paths);
  return material.ok() ? "no error" : std::string(Message(material.status()));
}

size_t Count(const std::string& text, const std::string& what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST(TlsFilesTest, TheIdentityIsTheKeyAndTheCertificates) {
  const TlsFolder folder;
  const TlsIdentity own = TlsIdentity::Make();
  const TlsIdentity authority = TlsIdentity::Make();
  folder.Write(own);
  folder.Write("tls.crt", own.certificate + "words between\n" + authority.certificate);
  const auto material = LoadTlsFiles(folder.paths());
  ASSERT_TRUE(material.ok()) << material.status();
  EXPECT_EQ(material->identity, own.key + own.certificate + authority.certificate);
  EXPECT_EQ(material->authorities, "");
  const auto left = material->not_after - std::chrono::system_clock::now();
  EXPECT_GT(left, std::chrono::minutes(58));
  EXPECT_LE(left, std::chrono::minutes(60));
}

TEST(TlsFilesTest, OneFileMayHoldTheKeyAndTheCertificate) {
  const TlsFolder folder;
  const TlsIdentity own = TlsIdentity::Make();
  folder.Write("both.pem", own.certificate + own.key);
  const auto material =
      LoadTlsFiles({.certificate = folder.path("both.pem"), .key = folder.path("both.pem")});
  ASSERT_TRUE(material.ok()) << material.status();
  EXPECT_EQ(material->identity, own.key + own.certificate);
}

TEST(TlsFilesTest, AuthoritiesMayComeAlone) {
  const TlsFolder folder;
  const std::string bundle = TlsIdentity::Make().certificate + TlsIdentity::Make().certificate;
  folder.Write("ca.crt", bundle);
  const auto material = LoadTlsFiles({.authorities = folder.path("ca.crt")});
  ASSERT_TRUE(material.ok()) << material.status();
  EXPECT_EQ(material->authorities, bundle);
  EXPECT_EQ(material->identity, "");
}

TEST(TlsFilesTest, AnExpiredCertificateTellsWhen) {
  const TlsFolder folder;
  folder.Write(TlsIdentity::Make(-60));
  const auto material = LoadTlsFiles(folder.paths());
  ASSERT_TRUE(material.ok()) << material.status();
  EXPECT_LT(material->not_after, std::chrono::system_clock::now());
}

TEST(TlsFilesTest, AFileThatCannotBeReadIsNamed) {
  const TlsFolder folder;
  const TlsIdentity own = TlsIdentity::Make();
  folder.Write("tls.crt", own.certificate);
  EXPECT_EQ(LoadTlsFiles(folder.paths()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrorOf(folder.paths()),
            "cannot open " + folder.path("tls.key") + ": No such file or directory");
  folder.Write("tls.key", std::string((size_t{1} << 20) + 1, '#'));
  EXPECT_EQ(ErrorOf(folder.paths()),
            "expected a file in PEM of at most 1048576 bytes, got more: " + folder.path("tls.key"));
  TlsPaths paths = folder.paths();
  paths.key = folder.path(".");
  EXPECT_THAT(ErrorOf(paths), StartsWith("expected a file in PEM, got a folder"));
}

TEST(TlsFilesTest, WhatIsNoPemIsNamed) {
  const TlsFolder folder;
  const TlsIdentity own = TlsIdentity::Make();
  folder.Write(own);
  folder.Write("tls.key", own.certificate);
  EXPECT_EQ(
      ErrorOf(folder.paths()),
      "expected a private key in PEM without a passphrase, got none: " + folder.path("tls.key"));
  folder.Write("tls.crt", std::string("\x30\x82\x01\x00", 4));
  EXPECT_EQ(ErrorOf(folder.paths()),
            "expected a certificate in PEM, got none: " + folder.path("tls.crt"));
  folder.Write("tls.crt", "");
  EXPECT_THAT(ErrorOf(folder.paths()), StartsWith("expected a certificate in PEM, got none: "));
  folder.Write(own);
  TlsPaths paths = folder.paths();
  paths.authorities = folder.path("ca.crt");
  folder.Write("ca.crt", own.key);
  EXPECT_EQ(ErrorOf(paths), "expected a certificate in PEM, got none: " + paths.authorities);
}

TEST(TlsFilesTest, ACertificateThatBreaksOffIsCounted) {
  const TlsFolder folder;
  const TlsIdentity own = TlsIdentity::Make();
  folder.Write(own);
  folder.Write("tls.crt", own.certificate + own.certificate.substr(0, 200));
  EXPECT_THAT(ErrorOf(folder.paths()), StartsWith("certificate 2 in the file cannot be read ("));
  EXPECT_THAT(ErrorOf(folder.paths()), EndsWith("): " + folder.path("tls.crt")));
}

TEST(TlsFilesTest, AKeyWithAPassphraseAsksNobody) {
  const TlsFolder folder;
  const TlsIdentity own = TlsIdentity::Make();
  folder.Write(own);
  folder.Write("tls.key", own.LockedKey());
  EXPECT_EQ(Count(own.LockedKey(), "ENCRYPTED"), 2U);
  EXPECT_THAT(ErrorOf(folder.paths()), HasSubstr("without a passphrase"));
}

TEST(TlsFilesTest, AKeyOfAnotherCertificateNamesBoth) {
  const TlsFolder folder;
  folder.Write(TlsIdentity::Make());
  folder.Write("tls.key", TlsIdentity::Make().key);
  EXPECT_EQ(LoadTlsFiles(folder.paths()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorOf(folder.paths()), "the private key in " + folder.path("tls.key") +
                                         " is not that of the certificate in " +
                                         folder.path("tls.crt"));
}

TEST(TlsFilesTest, AShortKeyIsRefusedInOpenSslsWords) {
  const TlsFolder folder;
  folder.Write(TlsIdentity::MakeWeak());
  EXPECT_EQ(ErrorOf(folder.paths()),
            "OpenSSL does not take the certificate (ee key too small): " + folder.path("tls.crt"));
}

// Every handshake would fail: OpenSSL looks at what is behind the certificate when it sends it.
TEST(TlsFilesTest, AShortKeyOfAnAuthorityBehindTheCertificateIsRefused) {
  const TlsFolder folder;
  const TlsIdentity own = TlsIdentity::Make();
  folder.Write(own);
  folder.Write("tls.crt", own.certificate + own.certificate + TlsIdentity::MakeWeak().certificate);
  EXPECT_EQ(ErrorOf(folder.paths()),
            "OpenSSL does not take certificate 3 in the file (ca key too small): " +
                folder.path("tls.crt"));
}

}  // namespace tls_files_test
}  // namespace octet
