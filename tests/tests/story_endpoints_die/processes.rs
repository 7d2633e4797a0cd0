//! Endpoints that are processes of their own, so that they can be killed and stopped.

use std::{io::Read, net::SocketAddr, process::Stdio, sync::Arc};

use http::Response;
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::sleep,
};

use super::*;

pub(crate) const PORT: &str = "MESH_STORY_SERVES_AT";

/// Its name, for whoever starts one.
pub(crate) const A_CHILD_SERVES: &str = "processes::a_child_serves";

/// Not a test: what a child of one does, which is this program again. It ends with its input, so with its parent.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_child_serves() {
    let Ok(address) = std::env::var(PORT) else { return };
    let listener = TcpListener::bind(address).await.unwrap();
    let own = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).unwrap();
            let answer = move |_| async move { Response::new(full(own.to_string())) };
            tokio::spawn(serve(socket, answer, Arc::default()));
        }
    });
    // The other thread serves meanwhile.
    drop(std::io::stdin().read(&mut [0]));
}

pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    pub(crate) child: Child,
}

impl Process {
    pub(crate) async fn start(port: &ClosedPort) -> Self {
        let address = port.address;
        // `env` only starts what follows it.
        let child = itself("env", &[], A_CHILD_SERVES, PORT, &address.to_string());
        let process = Self { address, child };
        process.listens().await;
        process
    }

    pub(crate) async fn listens(&self) {
        in_time(async {
            while TcpStream::connect(self.address).await.is_err() {
                sleep(5 * MS).await;
            }
        })
        .await;
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGSTOP: the kernel goes on to take connections and bytes, and nobody answers.
    pub(crate) async fn stop(&self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-STOP", &pid]).status().await.unwrap().success());
    }
}

/// This program once more, for the test of that name, by way of another.
pub(crate) fn itself(by: &str, args: &[&str], test: &str, name: &str, value: &str) -> Child {
    let mut command = Command::new(by);
    command.args(args).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(name, value);
    command.stdin(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}
