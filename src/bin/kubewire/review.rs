//! Reviews: in flows what is asked about this user, out comes what the server says of it.

use kubewire::{Client, request::Resource};
use serde_json::Value;

/// Asks for a review of this kind, which is `review` without its type.
pub(crate) async fn ask(
    client: &Client,
    group: &'static str,
    kind: &str,
    mut review: Value,
) -> kubewire::Result<Value> {
    let reviews = Resource::cluster(group, "v1", format!("{}s", kind.to_lowercase()));
    review["apiVersion"] = reviews.api_version().into();
    review["kind"] = kind.into();
    client.request(reviews).create(&review).await
}

pub(crate) fn texts(list: &Value) -> impl Iterator<Item = String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned))
}

/// As Go prints a list.
pub(crate) fn list<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    let texts: Vec<_> = texts.into_iter().map(|text| &**text).collect();
    format!("[{}]", texts.join(" "))
}
