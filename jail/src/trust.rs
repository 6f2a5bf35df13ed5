//! The certificates that the jailed command trusts: the system's and ours, as PEM and as a Java
//! trust store. Plain data: nothing here knows TLS, nothing is verified.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::environment;
use crate::error::{Error, Step};
use crate::plan::Plan;

/// Where distributions keep their bundle, most common first. The first that holds certificates is
/// the system's; inside a jail ours is laid over every one that exists.
pub(crate) const SYSTEM_BUNDLES: [&str; 11] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch, Gentoo, NixOS
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",   // their older path
    "/etc/ssl/ca-bundle.pem",             // openSUSE
    "/var/lib/ca-certificates/ca-bundle.pem", // what it points to
    "/etc/ssl/cert.pem",                  // Alpine, macOS
    "/etc/ssl/certs/ca-bundle.crt",       // NixOS
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem", // Arch
    "/usr/lib/ssl/cert.pem",                            // OpenSSL's own default on Debian
];

/// What goes into the trust folder.
#[derive(Debug)]
pub(crate) struct Trust {
    /// Our CA alone.
    pub(crate) authority: Vec<u8>,
    /// Our CA, then what the user's `NODE_EXTRA_CA_CERTS` held.
    pub(crate) node_extra: Option<Vec<u8>>,
    /// The system's certificates, ours, and those of the user's own files.
    pub(crate) bundle: Vec<u8>,
    /// The same as a Java trust store.
    pub(crate) truststore: Vec<u8>,
}

impl Trust {
    /// Reads the system's bundle and the files that the user's environment names.
    pub(crate) fn gather(plan: &Plan) -> Result<Self, Error> {
        let authority = certificates(&plan.authority_pem);
        if authority.is_empty() {
            return Err(Error::Plan("the CA is not a PEM certificate".to_owned()));
        }
        let own_files = environment::certificate_files(&plan.environment);
        let mut all = Merged::default();
        all.add(system_certificates()?);
        for certificate in &authority {
            all.add_one(certificate.clone());
        }
        // A file of the user's that cannot be read gave its client nothing before us either.
        all.add(own_files.iter().flat_map(|path| read_certificates(path).unwrap_or_default()));

        let node_extra = environment::node_extra_file(&plan.environment)
            .and_then(|path| read_certificates(&path).ok())
            .filter(|theirs| !theirs.is_empty())
            .map(|theirs| {
                let mut extra = Merged::default();
                extra.add(authority.iter().cloned());
                extra.add(theirs);
                extra.pem()
            });
        Ok(Self {
            authority: plan.authority_pem.clone().into_bytes(),
            node_extra,
            truststore: truststore(&all.list, SystemTime::now()),
            bundle: all.pem(),
        })
    }

    /// The files of the trust folder.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let always = [
            (CA_FILE, self.authority.as_slice()),
            (BUNDLE_FILE, self.bundle.as_slice()),
            (TRUSTSTORE_FILE, self.truststore.as_slice()),
        ];
        always.into_iter().chain(self.node_extra.as_deref().map(|pem| (NODE_EXTRA_FILE, pem)))
    }

    /// The file for `NODE_EXTRA_CA_CERTS`.
    pub(crate) fn node_extra_file(&self) -> &'static str {
        if self.node_extra.is_some() { NODE_EXTRA_FILE } else { CA_FILE }
    }
}

pub(crate) const CA_FILE: &str = "ca.pem";
pub(crate) const BUNDLE_FILE: &str = "bundle.pem";
pub(crate) const TRUSTSTORE_FILE: &str = "truststore.jks";
const NODE_EXTRA_FILE: &str = "node-extra.pem";

/// One certificate: its PEM text as it stood, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Certificate {
    pem: String,
    der: Vec<u8>,
}

/// Certificates in the order they came, each once.
#[derive(Default)]
struct Merged {
    list: Vec<Certificate>,
    seen: HashSet<Vec<u8>>,
}

impl Merged {
    fn add(&mut self, certificates: impl IntoIterator<Item = Certificate>) {
        certificates.into_iter().for_each(|certificate| self.add_one(certificate));
    }

    fn add_one(&mut self, certificate: Certificate) {
        if self.seen.insert(certificate.der.clone()) {
            self.list.push(certificate);
        }
    }

    fn pem(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.list.iter().map(|it| it.pem.len() + 1).sum());
        for certificate in &self.list {
            out.extend_from_slice(certificate.pem.as_bytes());
            out.push(b'\n');
        }
        out
    }
}

/// The system's certificates; none on a machine without a bundle (a bare container).
fn system_certificates() -> Result<Vec<Certificate>, Error> {
    for path in SYSTEM_BUNDLES.map(Path::new) {
        match read_certificates(path) {
            Ok(found) if !found.is_empty() => return Ok(found),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::setup(Step::Trust, Some(path.into()), error)),
        }
    }
    Ok(Vec::new())
}

/// Such files hold at most some megabytes; a device or a pipe named by mistake must not fill memory.
const CERTIFICATES_BYTES_MAX: u64 = 16 << 20;

fn read_certificates(path: &Path) -> io::Result<Vec<Certificate>> {
    let facts = std::fs::metadata(path)?;
    if !facts.is_file() || facts.len() > CERTIFICATES_BYTES_MAX {
        return Ok(Vec::new());
    }
    Ok(certificates(&String::from_utf8_lossy(&std::fs::read(path)?)))
}

/// The CERTIFICATE blocks of a PEM text (RFC 7468); keys and all else are passed over.
fn certificates(text: &str) -> Vec<Certificate> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        let Some(length) = rest[start..].find(END) else { break };
        let (body, end) = (start + BEGIN.len(), start + length);
        let base64: String = rest[body..end].split_ascii_whitespace().collect();
        if let Some(der) = STANDARD.decode(base64).ok().filter(|der| is_sequence(der)) {
            found.push(Certificate { pem: rest[start..end + END.len()].to_owned(), der });
        }
        rest = &rest[end + END.len()..];
    }
    found
}

/// Whether bytes are one ASN.1 sequence and nothing after it (X.690, 8.1). Not more than that, but
/// Java drops a whole trust store for one entry that is not even this.
fn is_sequence(der: &[u8]) -> bool {
    let [0x30, length, rest @ ..] = der else { return false };
    match usize::from(*length) {
        short @ ..0x80 => rest.len() == short,
        long => {
            let octets = long - 0x80;
            if octets == 0 || octets > 4 || rest.len() < octets {
                return false;
            }
            let value =
                rest[..octets].iter().fold(0, |value, octet| value << 8 | usize::from(*octet));
            rest.len() - octets == value
        }
    }
}

/// A Java key store (JKS version 2) of trusted certificates, with Java's customary password.
///
/// The layout is that of the JDK's `sun.security.provider.JavaKeyStore`: big-endian numbers, texts
/// with a 16-bit length, and at the end a SHA-1 over password, a fixed phrase and all before.
fn truststore(certificates: &[Certificate], now: SystemTime) -> Vec<u8> {
    let milliseconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let date = u64::try_from(milliseconds).unwrap_or(u64::MAX).to_be_bytes();
    let mut store = Vec::new();
    store.extend(0xFEED_FEED_u32.to_be_bytes());
    store.extend(2_u32.to_be_bytes());
    store.extend(length_u32(certificates.len()));
    for (number, certificate) in certificates.iter().enumerate() {
        store.extend(2_u32.to_be_bytes()); // a trusted certificate
        put_text(&mut store, &format!("agent-gate-{number}"));
        store.extend(date);
        put_text(&mut store, "X.509");
        store.extend(length_u32(certificate.der.len()));
        store.extend(&certificate.der);
    }
    let mut digest = Sha1::new();
    for unit in "changeit".encode_utf16() {
        digest.update(unit.to_be_bytes());
    }
    digest.update(b"Mighty Aphrodite");
    digest.update(&store);
    store.extend(digest.finalize().as_slice());
    store
}

fn put_text(store: &mut Vec<u8>, ascii: &str) {
    let length = u16::try_from(ascii.len()).expect("an alias is some twenty letters long");
    store.extend(length.to_be_bytes());
    store.extend(ascii.as_bytes());
}

fn length_u32(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("files are read up to 16 MiB").to_be_bytes()
}

/// Where Java installations keep their trust store: the distribution's, `$JAVA_HOME`'s, that of
/// the `java` on `PATH`, and the usual folders of whole installations.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(crate) fn java_stores(environment: &[(OsString, OsString)]) -> Vec<PathBuf> {
    let mut stores: Vec<PathBuf> = DISTRIBUTION_JAVA_STORES.map(PathBuf::from).into();
    let mut homes: Vec<PathBuf> = Vec::new();
    homes.extend(environment::value(environment, "JAVA_HOME").map(PathBuf::from));
    homes.extend(java_home_on_path(environment));
    let home = environment::value(environment, "HOME").map(PathBuf::from).unwrap_or_default();
    let folders = [
        PathBuf::from("/usr/lib/jvm"),
        PathBuf::from("/usr/java"),
        PathBuf::from("/opt/java"),
        home.join(".sdkman/candidates/java"),
        home.join(".jdks"),
    ];
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        homes.extend(entries.flatten().map(|entry| entry.path()));
    }
    for home in homes {
        stores.push(home.join("lib/security/cacerts"));
        stores.push(home.join("jre/lib/security/cacerts")); // Java 8
    }
    stores
}

const DISTRIBUTION_JAVA_STORES: [&str; 4] = [
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
    "/etc/pki/java/cacerts",
    "/var/lib/ca-certificates/java-cacerts",
];

fn java_home_on_path(environment: &[(OsString, OsString)]) -> Option<PathBuf> {
    let path = environment::value(environment, "PATH")?;
    let java =
        std::env::split_paths(path).map(|folder| folder.join("java")).find(|it| it.is_file());
    Some(java?.canonicalize().ok()?.parent()?.parent()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence with a body of less than 128 bytes.
    fn der(body: &[u8]) -> Vec<u8> {
        [&[0x30, u8::try_from(body.len()).unwrap()], body].concat()
    }

    fn pem(body: &[u8]) -> String {
        let text = STANDARD.encode(der(body));
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----")
    }

    fn plan(authority: &str, environment: &[(&str, &Path)]) -> Plan {
        Plan {
            argv: Vec::new(),
            cwd: "/".into(),
            environment: environment.iter().map(|(name, it)| (name.into(), it.into())).collect(),
            proxy_port: 1,
            transparent_ports: Vec::new(),
            authority_pem: authority.to_owned(),
            trust_dir: "/t".into(),
            hidden: Vec::new(),
        }
    }

    #[test]
    fn blocks_are_cut_out_of_any_text() {
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";
        let text = format!("# a\n{}\n{key}\r\n{}\njunk", pem(b"one"), pem(b"two"));
        let found = certificates(&text);
        assert_eq!(
            found.iter().map(|it| &it.der).collect::<Vec<_>>(),
            [&der(b"one"), &der(b"two")]
        );
        assert!(found.iter().all(|it| !it.pem.contains("PRIVATE")));
    }

    #[test]
    fn broken_blocks_are_passed_over() {
        for text in ["", "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"] {
            assert!(certificates(text).is_empty());
        }
        let text = format!(
            "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n{}",
            pem(b"after")
        );
        assert_eq!(certificates(&text).len(), 1);
    }

    #[test]
    fn only_whole_sequences_pass() {
        let long = [&[0x30, 0x82, 1, 0][..], &[7; 256]].concat();
        for good in [&[0x30, 0][..], &[0x30, 1, 5], &[0x30, 0x81, 1, 5], &long] {
            assert!(is_sequence(good), "{good:?}");
            for length in 0..good.len() {
                assert!(!is_sequence(&good[..length]), "{good:?} cut at {length}");
            }
            assert!(!is_sequence(&[good, &[0]].concat()), "{good:?} and more");
        }
        for bad in [&[0x31, 0][..], &[0x30, 0x80, 0, 0], &[0x30, 0x85, 0, 0, 0, 0, 0]] {
            assert!(!is_sequence(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_users_private_certificates_stay_trusted_and_each_stands_once() {
        let folder = tempfile::tempdir().unwrap();
        let (own, extra) = (folder.path().join("own.pem"), folder.path().join("extra.pem"));
        std::fs::write(&own, format!("{}\n{}", pem(b"own"), pem(b"ours"))).unwrap();
        std::fs::write(&extra, pem(b"extra")).unwrap();
        let plan = plan(&pem(b"ours"), &[("SSL_CERT_FILE", &own), ("NODE_EXTRA_CA_CERTS", &extra)]);
        let trust = Trust::gather(&plan).unwrap();
        let ders = |pem: &[u8]| {
            let list = certificates(std::str::from_utf8(pem).unwrap());
            list.into_iter().map(|it| it.der).collect::<Vec<_>>()
        };
        let bundle = ders(&trust.bundle);
        for wanted in [b"own".as_slice(), b"ours", b"extra"] {
            assert_eq!(bundle.iter().filter(|it| **it == der(wanted)).count(), 1);
        }
        assert_eq!(ders(trust.node_extra.as_deref().unwrap()), [der(b"ours"), der(b"extra")]);
        assert_eq!(trust.node_extra_file(), "node-extra.pem");
    }

    #[test]
    fn without_the_users_files_node_gets_the_ca_alone() {
        let missing = Path::new("/does/not/exist.pem");
        let trust =
            Trust::gather(&plan(&pem(b"ours"), &[("NODE_EXTRA_CA_CERTS", missing)])).unwrap();
        assert_eq!(trust.node_extra_file(), "ca.pem");
        assert!(Trust::gather(&plan("nothing", &[])).is_err());
    }

    #[test]
    fn a_truststore_has_javas_layout() {
        let certificate = Certificate { pem: String::new(), der: b"der".to_vec() };
        let store = truststore(&[certificate], UNIX_EPOCH);
        let (body, digest) = store.split_at(store.len() - 20);
        let mut wanted = vec![0xFE, 0xED, 0xFE, 0xED, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 12];
        wanted.extend(b"agent-gate-0\0\0\0\0\0\0\0\0\0\x05X.509\0\0\0\x03der");
        assert_eq!(body, wanted);
        assert_ne!(digest, [0; 20]);
    }
}
