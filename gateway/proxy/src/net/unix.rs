//! Listening on a path.
//!
//! Owns the file of the socket: takes the place of one that nobody listens on any more, and removes nothing that is not its own.

use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net,
        },
    },
};
use tokio::net::UnixListener;

/// A socket that listens on a path; a name that begins with `@` is no file.
#[derive(Debug)]
pub(crate) struct Listening {
    socket: net::UnixListener,
    /// Device and number of its file.
    file: Option<(u64, u64)>,
}

impl Listening {
    /// Listens.
    ///
    /// # Errors
    /// What the system says, notably that somebody listens there.
    pub(crate) fn bind(path: &str, mode: Option<u32>) -> io::Result<Self> {
        if let Some(name) = path.strip_prefix('@') {
            let socket = net::UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(name)?)?;
            socket.set_nonblocking(true)?;
            return Ok(Self { socket, file: None });
        }
        remove_stale(path);
        let socket = net::UnixListener::bind(path)?;
        let own = Self { socket, file: number(path) };
        if let Err(error) = own.socket.set_nonblocking(true).and_then(|()| own.allow(path, mode)) {
            own.close(path);
            return Err(error);
        }
        Ok(own)
    }

    /// The same socket for one more who accepts from it.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn again(&self, path: &str, mode: Option<u32>) -> io::Result<UnixListener> {
        self.allow(path, mode)?;
        UnixListener::from_std(self.socket.try_clone()?)
    }

    fn allow(&self, path: &str, mode: Option<u32>) -> io::Result<()> {
        match mode.filter(|_| self.file.is_some()) {
            Some(mode) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
            None => Ok(()),
        }
    }

    /// Closes it with its file, unless somebody else put another one there.
    pub(crate) fn close(self, path: &str) {
        if self.file.is_some() && number(path) == self.file {
            // What cannot be removed is found to be stale by whoever listens there next.
            let _ = fs::remove_file(path);
        }
    }
}

fn number(path: &str) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|facts| (facts.dev(), facts.ino()))
}

/// A socket file that nobody listens on is left over from an earlier process. Asked without waiting: whoever is busy is there.
fn remove_stale(path: &str) {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|facts| facts.file_type().is_socket());
    let refused = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    if is_socket && refused().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        // Binding says what is wrong if this fails.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::bound::Bound;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_path_has_one_socket_until_the_last_lets_go_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<str> = folder.path().join("s").to_str().unwrap().into();
        let (ours, theirs) = (Bound::new(2), Bound::new(2));
        let before = ours.take_unix(&path, Some(0o600)).unwrap();
        let file = number(&path);
        let after = ours.take_unix(&path, Some(0o666)).unwrap();
        assert_eq!(fs::metadata(&*path).unwrap().mode() & 0o777, 0o666);
        assert_eq!(theirs.take_unix(&path, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(before);
        ours.closed_unix(&path);
        assert_eq!(number(&path), file, "whoever else listens there is not cut off");
        let client = tokio::net::UnixStream::connect(&*path);
        let (accepted, connected) = tokio::join!(after.accept(), client);
        assert!(accepted.is_ok() && connected.is_ok());
        drop(after);
        ours.closed_unix(&path);
        assert!(number(&path).is_none());
        let _next = theirs.take_unix(&path, None).unwrap();
        // What another process put there in our place is not ours to remove.
        fs::remove_file(&*path).unwrap();
        fs::write(&*path, "").unwrap();
        theirs.closed_unix(&path);
        assert!(fs::metadata(&*path).unwrap().is_file());
        assert!(ours.take_unix(&path, None).is_err(), "a file is no socket to be replaced");
        assert!(fs::metadata(&*path).unwrap().is_file());
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<str> = folder.path().join("s").to_str().unwrap().into();
        drop(net::UnixListener::bind(&*path).unwrap());
        assert!(Bound::new(1).take_unix(&path, None).is_ok());
    }
}
