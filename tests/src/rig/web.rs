//! A stock nginx that serves one folder: HTTP, or HTTPS with HTTP/2.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tls::Ca;
use super::{Process, SOON, free_port, loopbacks, run, until, write};

/// A running nginx.
pub struct Web {
    process: Process,
    folder: PathBuf,
    config: PathBuf,
    port: u16,
    tls: bool,
}

impl Web {
    /// Serves `library` with its own files in `folder`, over TLS if `ca` is given; returns when it accepts connections.
    ///
    /// # Panics
    /// When nginx is missing, refuses the configuration, or does not come up.
    pub fn start(folder: &Path, library: &Path, ca: Option<&Ca>) -> Self {
        let port = free_port();
        let (how, tls) = match ca {
            None => ("", String::new()),
            Some(ca) => (
                " ssl http2",
                format!("ssl_certificate {}; ssl_certificate_key {};", ca.certificate.display(), ca.key.display()),
            ),
        };
        let listen: String = loopbacks().map(|ip| format!("listen {}{how};", SocketAddr::new(ip, port))).collect();
        let server = format!("server {{ {listen} {tls} root {}; }}", library.display());
        Self::with(folder, port, ca.is_some(), &server)
    }

    /// The same with a `server` block of the caller's own (what `jukebox-office config nginx` prints), listening on `port`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn with(folder: &Path, port: u16, tls: bool, server: &str) -> Self {
        let config = folder.join("nginx.conf");
        let at = folder.display();
        // One process, so that a kill leaves no worker behind; it stays the user that started it (root, where others have no
        // place: in a namespace of its own).
        write(
            &config,
            format!(
                "user root; daemon off; master_process off; pid {at}/nginx.pid; error_log stderr notice;\n\
                 events {{ worker_connections 256; }}\n\
                 http {{ default_type application/octet-stream; tcp_nopush off;\n\
                 client_body_temp_path {at}/t1; proxy_temp_path {at}/t2; fastcgi_temp_path {at}/t3;\n\
                 uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5;\n\
                 log_format rig '$request_method $uri $status $http_range $server_protocol $body_bytes_sent';\n\
                 access_log {at}/requests.log rig;\n\
                 {server}\n}}\n"
            ),
        );
        let process = Self::launch(folder, &config, port);
        Self { process, folder: folder.to_owned(), config, port, tls }
    }

    /// URL of the library.
    pub fn url(&self) -> String {
        // Never localhost: that could be ::1 first, where nobody listens.
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// What was asked so far: `METHOD PATH STATUS RANGE PROTOCOL BYTES`, a line each.
    pub fn requests(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("requests.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Sends a signal: `STOP` freezes it, `CONT` thaws it.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Kills it: connections are cut.
    pub fn stop(&mut self) {
        self.process.kill();
    }

    /// Starts it again, on the same port.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        self.stop();
        self.process = Self::launch(&self.folder, &self.config, self.port);
    }

    fn launch(folder: &Path, config: &Path, port: u16) -> Process {
        let nginx = || {
            let path = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|p| Path::new(p).exists());
            let mut command = Command::new(path.unwrap_or("nginx"));
            command.arg("-p").arg(folder).arg("-c").arg(config).args(["-e", "stderr"]);
            command
        };
        run(nginx().arg("-t"));
        let process = Process::start("nginx", &mut nginx());
        until("nginx accepts connections", SOON, || TcpStream::connect(("127.0.0.1", port)).ok());
        process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_served_over_http_2_with_tls_and_ranges() {
        let folder = crate::rig::folder();
        let library = folder.path().join("library");
        std::fs::create_dir(&library).unwrap();
        write(&library.join("object"), "0123456789");
        let ca = Ca::new(folder.path());
        let mut web = Web::start(folder.path(), &library, Some(&ca));
        let get = |url: &str| {
            let mut curl = Command::new("curl");
            run(curl.args(["-sS", "--http2", "-r", "2-4", "--cacert"]).arg(&ca.ca).arg(format!("{url}/object")))
        };
        assert_eq!(get(&web.url()), "234");
        until("the request is logged", SOON, || {
            web.requests().iter().any(|r| r == "GET /object 206 bytes=2-4 HTTP/2.0 3").then_some(())
        });
        web.stop();
        assert!(TcpStream::connect(("127.0.0.1", web.port)).is_err(), "stopped");
        web.start_again();
        assert_eq!(get(&web.url()), "234");
    }
}
