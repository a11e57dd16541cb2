//! Bytes through the gateway.

use crate::{
    build::{cluster, endpoints, listener, tcp_chain},
    origin::Origin,
    process::{Gateway, Options},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tombolo_tests_kit::{ads::Ads, free};

#[tokio::test]
async fn bytes_pass_and_halves_close_apart() {
    let origin = Origin::tcp().await;
    let ads = Ads::start().await;
    let at = free();
    ads.set([("a", cluster("a"))]);
    ads.set([("a", endpoints("a", &[origin.address]))]);
    ads.set([("l", listener("l", at, vec![tcp_chain("a")]))]);
    let _gateway = Gateway::ready(&Options::new(ads.address)).await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    let sent = "quiet ".repeat(50_000);
    let (mut read, mut write) = stream.split();
    let (answer, ()) = tokio::join!(
        async {
            let mut answer = String::new();
            read.read_to_string(&mut answer).await.unwrap();
            answer
        },
        async {
            write.write_all(sent.as_bytes()).await.unwrap();
            write.shutdown().await.unwrap();
        }
    );
    assert_eq!(answer, sent.to_uppercase());
}
