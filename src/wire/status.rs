//! `metav1.Status`: how the API server says success, an exit code, or why not.
//!
//! In flow the JSON of an HTTP error body, of the error channel of exec and attach (from
//! `v4.channel.k8s.io` on), or of an `ERROR` watch event; out comes a [`Status`]. The text that
//! older subprotocols send instead is read here too.

use serde::{Deserialize, Serialize};

/// The API server's answer to a request that did not return an object.
///
/// The fields are those of `k8s.io/apimachinery/pkg/apis/meta/v1/types.go` (`Status`). Every field
/// is optional on the wire; what was absent is empty here.
///
/// ```
/// use kubewire::wire::status::Status;
///
/// let status = Status::from_json(&Status::exit_code(3).to_json())?;
/// assert!(!status.is_success());
/// assert_eq!((status.reason.as_str(), status.code_of_exit()), ("NonZeroExitCode", Some(3)));
/// # Ok::<(), kubewire::wire::status::StatusError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Status {
    /// `Success` or `Failure`.
    #[serde(deserialize_with = "null_is_default")]
    pub status: String,
    /// What happened, for people.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_default")]
    pub message: String,
    /// What happened, for programs: `NotFound`, `Forbidden`, `NonZeroExitCode`, …
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_default")]
    pub reason: String,
    /// More about the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    /// The HTTP status code that goes with the answer; 0 if the server gave none.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "code")]
    pub code: u16,
}

/// What a [`Status`] is about.
///
/// ```
/// use kubewire::wire::status::Status;
///
/// let json = br#"{"status": "Failure", "code": 429, "details": {"retryAfterSeconds": 5}}"#;
/// let details = Status::from_json(json)?.details.unwrap_or_default();
/// assert_eq!(details.retry_after_seconds, 5);
/// # Ok::<(), kubewire::wire::status::StatusError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct StatusDetails {
    /// The name of the object.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_default")]
    pub name: String,
    /// The API group of the object; empty for the core group.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_default")]
    pub group: String,
    /// The kind of the object; where the server only knows the resource, that.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_default")]
    pub kind: String,
    /// The UID of the object.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_default")]
    pub uid: String,
    /// The separate causes of the failure.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_default")]
    pub causes: Vec<StatusCause>,
    /// Seconds to wait before the request is worth repeating; 0 if the server does not say.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "seconds")]
    pub retry_after_seconds: u32,
}

/// One cause among the [`StatusDetails`].
///
/// ```
/// use kubewire::wire::status::Status;
///
/// let details = Status::exit_code(3).details.unwrap_or_default();
/// assert_eq!((&*details.causes[0].reason, &*details.causes[0].message), ("ExitCode", "3"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct StatusCause {
    /// The kind of cause: `ExitCode`, `FieldValueInvalid`, `ResourceVersionTooLarge`, …
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_default")]
    pub reason: String,
    /// The cause, for people; for `ExitCode` the code in decimal.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_default")]
    pub message: String,
    /// The field of the object that the cause is about.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_default")]
    pub field: String,
}

fn is_empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Go writes an empty slice or map of some versions as `null`.
pub(super) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Go's `int32`. One that is no HTTP code is none; what else the Status says counts.
fn code<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let code: i64 = null_is_default(deserializer)?;
    Ok(u16::try_from(code).unwrap_or_default())
}

/// Go's `int32`.
fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let seconds: i64 = null_is_default(deserializer)?;
    Ok(u32::try_from(seconds.max(0)).unwrap_or(u32::MAX))
}

impl Status {
    /// A success, as servers write it at the end of exec and attach.
    pub fn success() -> Self {
        Self {
            status: "Success".into(),
            ..Self::default()
        }
    }

    /// A failure with its HTTP code, reason and message.
    pub fn failure(code: u16, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status: "Failure".into(),
            message: message.into(),
            reason: reason.into(),
            code,
            ..Self::default()
        }
    }

    /// The failure that carries the exit code of a command.
    ///
    /// The form is that of `k8s.io/cri-streaming/pkg/streaming/remotecommand/exec.go`.
    pub fn exit_code(code: impl Into<i64>) -> Self {
        let code = code.into();
        let message = format!(
            "command terminated with non-zero exit code: command terminated with exit code {code}"
        );
        Self {
            details: Some(StatusDetails {
                causes: vec![StatusCause {
                    reason: "ExitCode".into(),
                    message: code.to_string(),
                    field: String::new(),
                }],
                ..StatusDetails::default()
            }),
            ..Self::failure(0, "NonZeroExitCode", message)
        }
    }

    /// Parses the JSON of a Status.
    ///
    /// # Errors
    ///
    /// If the bytes are not JSON, or are JSON of something that does not say `Success` or
    /// `Failure`: an object of another kind must never pass for an answer.
    pub fn from_json(json: &[u8]) -> Result<Self, StatusError> {
        let status: Self = serde_json::from_slice(json).map_err(|error| match error.is_eof() {
            true => StatusError::Truncated,
            false => StatusError::NotJson(error.to_string()),
        })?;
        match status.status.as_str() {
            "Success" | "Failure" => Ok(status),
            other => Err(StatusError::NotAStatus(other.chars().take(64).collect())),
        }
    }

    /// Reads the text that `channel.k8s.io` sends on its error channel in place of a Status.
    ///
    /// The exit code stands at its end, in words that depend on the container runtime; the front
    /// is `k8s.io/cri-streaming/pkg/streaming/remotecommand/exec.go`.
    pub fn from_text(text: &str) -> Self {
        let text = text.trim_end();
        let code = text
            .strip_prefix("command terminated with non-zero exit code")
            .and_then(|rest| rest.rsplit([' ', ':']).next())
            .and_then(|code| code.parse::<i64>().ok());
        match code {
            Some(code) => Self {
                message: text.to_owned(),
                ..Self::exit_code(code)
            },
            None => Self::failure(500, "InternalError", text),
        }
    }

    /// The exit code of the command, where the Status says that it ran: 0 for a success, and for
    /// a failure the cause `ExitCode`. A failure with code 0 contradicts itself, and has none: it
    /// must not pass for a success.
    ///
    /// A code of Windows has all 32 bits, as in 3221225786 for Ctrl-C.
    pub fn code_of_exit(&self) -> Option<i64> {
        if self.is_success() {
            return Some(0);
        }
        let cause = self.causes().find(|cause| cause.reason == "ExitCode")?;
        cause.message.parse().ok().filter(|code| *code != 0)
    }

    /// The JSON of this Status, as a body of its own.
    pub fn to_json(&self) -> Vec<u8> {
        self.write("Status", "v1")
    }

    /// The JSON of this Status on the error channel, where it does not say what it is
    /// (`k8s.io/cri-streaming/pkg/streaming/remotecommand/websocket.go`).
    pub(crate) fn to_message(&self) -> Vec<u8> {
        self.write("", "")
    }

    fn write(&self, kind: &str, api_version: &str) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed<'a> {
            #[serde(skip_serializing_if = "str::is_empty")]
            kind: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            api_version: &'a str,
            metadata: serde_json::Map<String, serde_json::Value>,
            #[serde(flatten)]
            status: &'a Status,
        }
        let typed = Typed {
            kind,
            api_version,
            metadata: serde_json::Map::new(),
            status: self,
        };
        serde_json::to_vec(&typed).unwrap_or_default()
    }

    /// Whether the server says that it did what was asked.
    pub fn is_success(&self) -> bool {
        self.status == "Success"
    }

    /// Whether the cause `reason` is among the details.
    pub fn has_cause(&self, reason: &str) -> bool {
        self.causes().any(|cause| cause.reason == reason)
    }

    /// The separate causes, if any.
    pub fn causes(&self) -> impl Iterator<Item = &StatusCause> {
        self.details.iter().flat_map(|details| &details.causes)
    }
}

/// The message, or what stands in for it where the server sent none.
impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.message.as_str(), self.reason.as_str()) {
            ("", "") => write!(f, "{} without a message (code {})", self.status, self.code),
            ("", reason) => write!(f, "{reason} (code {})", self.code),
            (message, _) => f.write_str(message),
        }
    }
}

/// Why bytes are not a [`Status`].
///
/// ```
/// use kubewire::wire::status::{Status, StatusError};
///
/// assert!(matches!(Status::from_json(b"{\"status\": "), Err(StatusError::Truncated)));
/// assert!(matches!(Status::from_json(b"{\"kind\": \"Pod\"}"), Err(StatusError::NotAStatus(_))));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// The front of a JSON value.
    #[error("the status ends in the middle")]
    Truncated,
    /// More than a Status has.
    #[error("the status is longer than {0} bytes")]
    TooLong(usize),
    /// Not JSON, or fields of the wrong type.
    #[error("the status is not valid JSON: {0}")]
    NotJson(String),
    /// JSON whose `status` is neither `Success` nor `Failure`.
    #[error("the status says neither Success nor Failure but {0:?}")]
    NotAStatus(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_goes_there_and_back() {
        let status = Status::from_json(&Status::exit_code(137).to_json()).unwrap();
        assert_eq!(status, Status::exit_code(137));
        assert_eq!(
            (status.is_success(), status.code_of_exit()),
            (false, Some(137))
        );
        assert_eq!(Status::success().code_of_exit(), Some(0));
        assert_eq!(Status::exit_code(0).code_of_exit(), None);
        assert_eq!(
            Status::failure(500, "InternalError", "no").code_of_exit(),
            None
        );
    }

    #[test]
    fn numbers_that_are_out_of_range_leave_the_words() {
        for (code, seconds, expected) in [
            ("-1", "-1", (0, 0)),
            ("70000", "4294967296", (0, u32::MAX)),
            ("null", "null", (0, 0)),
        ] {
            let json = format!(
                r#"{{"status":"Failure","message":"no","code":{code},"details":{{"retryAfterSeconds":{seconds}}}}}"#
            );
            let status = Status::from_json(json.as_bytes()).unwrap();
            let details = status.details.unwrap();
            assert_eq!((status.code, details.retry_after_seconds), expected);
            assert_eq!(status.message, "no");
        }
    }

    #[test]
    fn every_exit_code_keeps_its_value() {
        for code in [1, 255, 256, 300, -1, 3_221_225_786, i64::MAX, i64::MIN] {
            let status = Status::from_json(&Status::exit_code(code).to_json()).unwrap();
            assert_eq!(status.code_of_exit(), Some(code));
            let status = Status::from_text(&status.message);
            assert_eq!(status.code_of_exit(), Some(code), "as text");
        }
        let status = |code: &str| {
            let mut status = Status::exit_code(1);
            status.details.as_mut().unwrap().causes[0].message = code.into();
            status.code_of_exit()
        };
        assert_eq!(status("9223372036854775808"), None);
        assert_eq!(status("0"), None);
    }

    #[test]
    fn the_text_of_each_runtime_gives_its_code() {
        let front = "command terminated with non-zero exit code: ";
        for (text, code) in [
            (
                "error executing command [sh -c exit 3], exit code 3",
                Some(3),
            ),
            ("exit status 42\n", Some(42)),
            ("Error executing in Docker Container: 126", Some(126)),
            ("signal: killed", None),
        ] {
            let status = Status::from_text(&format!("{front}{text}"));
            assert_eq!(
                (status.code_of_exit(), status.is_success()),
                (code, false),
                "{text}"
            );
        }
        assert_eq!(
            Status::from_text("no such container 7").code_of_exit(),
            None
        );
    }

    #[test]
    fn only_a_status_passes_for_one() {
        let error = |json: &str| Status::from_json(json.as_bytes()).unwrap_err();
        assert_eq!(error(r#"{"status":"Succ"#), StatusError::Truncated);
        assert_eq!(
            error(r#"{"kind":"Pod"}"#),
            StatusError::NotAStatus(String::new())
        );
        assert_eq!(
            error(r#"{"status":"success"}"#),
            StatusError::NotAStatus("success".into())
        );
        assert!(matches!(error("<html>"), StatusError::NotJson(_)));
        assert!(matches!(error(r#"{"status":3}"#), StatusError::NotJson(_)));
    }

    #[test]
    fn absent_and_null_are_empty() {
        let json = r#"{"status":"Failure","details":{"causes":null,"name":null},"message":null}"#;
        let status = Status::from_json(json.as_bytes()).unwrap();
        assert_eq!(status.details, Some(StatusDetails::default()));
    }
}
