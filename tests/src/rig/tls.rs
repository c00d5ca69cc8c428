//! A certificate authority for one test, made with openssl: what a company's own CA would be.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{run, write};

/// A CA and one server certificate for `localhost`, `office.rig`, 127.0.0.1 and ::1, as PEM files.
pub struct Ca {
    /// The root that clients are given.
    pub ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
}

impl Ca {
    /// Makes the files in `folder`.
    ///
    /// # Panics
    /// When openssl is missing or fails.
    pub fn new(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        let openssl = |line: &str| run(Command::new("openssl").args(line.split(' ')).current_dir(folder));
        const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!(
            "req -x509 {NEW_KEY} -keyout ca.key -out ca.pem -days 2 -subj /CN=rig-ca \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
        ));
        openssl(&format!("req {NEW_KEY} -keyout server.key -out server.csr -subj /CN=localhost"));
        write(
            &file("server.ext"),
            "subjectAltName=DNS:localhost,DNS:office.rig,IP:127.0.0.1,IP:::1\nextendedKeyUsage=serverAuth\n",
        );
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.pem",
        );
        Self { ca: file("ca.pem"), certificate: file("server.pem"), key: file("server.key") }
    }
}
