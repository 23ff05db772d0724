//! What kubectl has and this program has not: in flows an argument that is not known, out comes
//! what to use instead.

/// A flag of kubectl's.
struct Flag {
    /// The verb; empty for all of them.
    verb: &'static str,
    long: &'static str,
    short: &'static str,
    instead: &'static str,
}

const fn flag(
    verb: &'static str,
    long: &'static str,
    short: &'static str,
    instead: &'static str,
) -> Flag {
    Flag {
        verb,
        long,
        short,
        instead,
    }
}

const COPY: &str = "it is for copies of pods, which are kubectl's: use kubectl debug";
const JQ: &str = "use -o json with a program such as jq";

const FLAGS: &[Flag] = &[
    flag(
        "wait",
        "allow-missing-template-keys",
        "",
        "it prints a line an object only; use kubewire get",
    ),
    flag(
        "wait",
        "local",
        "",
        "there is nothing to wait for without a server",
    ),
    flag(
        "wait",
        "output",
        "o",
        "it prints a line an object only; use kubewire get",
    ),
    flag(
        "wait",
        "show-managed-fields",
        "",
        "it prints a line an object only; use kubewire get",
    ),
    flag(
        "wait",
        "template",
        "",
        "it prints a line an object only; use kubewire get",
    ),
    flag(
        "api-resources",
        "cached",
        "",
        "nothing is cached on disk, so leave it out",
    ),
    flag(
        "api-resources",
        "show-managed-fields",
        "",
        "it has none, so leave it out",
    ),
    flag(
        "api-resources",
        "allow-missing-template-keys",
        "",
        "use -o name or -o wide",
    ),
    flag("api-resources", "template", "", "use -o name or -o wide"),
    flag("auth can-i", "list", "", "use kubectl auth can-i --list"),
    flag(
        "auth can-i",
        "no-headers",
        "",
        "it belongs to --list, which is kubectl's",
    ),
    flag(
        "events",
        "chunk-size",
        "",
        "lists come in pages of 500, so leave it out",
    ),
    flag(
        "events",
        "allow-missing-template-keys",
        "",
        "use `kubewire get events` with -o jsonpath",
    ),
    flag(
        "events",
        "template",
        "",
        "write the template behind the form: -o jsonpath=TEMPLATE",
    ),
    flag(
        "events",
        "show-managed-fields",
        "",
        "use `kubewire get events --show-managed-fields`",
    ),
    flag(
        "",
        "cache-dir",
        "",
        "nothing is cached on disk, so leave it out",
    ),
    flag(
        "",
        "disable-compression",
        "",
        "answers are never asked for compressed, so leave it out",
    ),
    flag("", "kuberc", "", "give the flags, or an alias of the shell"),
    flag(
        "",
        "log-flush-frequency",
        "",
        "what -v shows is written at once, so leave it out",
    ),
    flag(
        "",
        "match-server-version",
        "",
        "compare what `kubewire version` prints",
    ),
    flag(
        "",
        "password",
        "",
        "put username and password into the kubeconfig's user, or use --token",
    ),
    flag(
        "",
        "profile",
        "",
        "use a profiler of the system, such as perf",
    ),
    flag(
        "",
        "profile-output",
        "",
        "use a profiler of the system, such as perf",
    ),
    flag(
        "",
        "username",
        "",
        "put username and password into the kubeconfig's user, or use --token",
    ),
    flag("", "vmodule", "", "use -v=9, which shows everything"),
    flag(
        "",
        "warnings-as-errors",
        "",
        "the server's warnings are not looked at; use kubectl",
    ),
    flag("auth whoami", "allow-missing-template-keys", "", JQ),
    flag(
        "auth whoami",
        "output",
        "o",
        "it prints a table only; use kubectl",
    ),
    flag(
        "auth whoami",
        "show-managed-fields",
        "",
        "it has none, so leave it out",
    ),
    flag(
        "auth whoami",
        "template",
        "",
        "it prints a table only; use kubectl",
    ),
    flag("debug", "copy-to", "", COPY),
    flag("debug", "custom", "", "use --profile, or kubectl debug"),
    flag("debug", "filename", "f", "name the pod on the command line"),
    flag("debug", "keep-annotations", "", COPY),
    flag("debug", "keep-init-containers", "", COPY),
    flag("debug", "keep-labels", "", COPY),
    flag("debug", "keep-liveness", "", COPY),
    flag("debug", "keep-readiness", "", COPY),
    flag("debug", "keep-startup", "", COPY),
    flag("debug", "replace", "", COPY),
    flag("debug", "same-node", "", COPY),
    flag("debug", "set-image", "", COPY),
    flag("debug", "share-processes", "", COPY),
    flag(
        "get",
        "kustomize",
        "k",
        "use `kubectl kustomize DIR | kubewire get -f -`",
    ),
    flag(
        "get",
        "server-print",
        "",
        "use -o name, -o custom-columns or -o jsonpath",
    ),
    flag(
        "version",
        "output",
        "o",
        "use `kubewire get --raw /version`, which prints JSON",
    ),
];

/// kubectl's verbs, and what is here instead.
const VERBS: &[(&str, &str)] = &[
    ("annotate", ""),
    (
        "api-versions",
        "`kubewire get --raw /apis` has the server's own list; or ",
    ),
    ("apply", ""),
    ("autoscale", ""),
    ("certificate", ""),
    ("cluster-info", ""),
    ("config", ""),
    ("cordon", ""),
    ("create", ""),
    ("delete", ""),
    (
        "describe",
        "`kubewire get -o yaml` prints all that is known; or ",
    ),
    ("diff", ""),
    ("drain", ""),
    ("edit", ""),
    ("explain", ""),
    ("expose", ""),
    ("kuberc", ""),
    ("kustomize", ""),
    ("label", ""),
    ("options", "every verb's --help lists all flags; or "),
    ("patch", ""),
    ("plugin", ""),
    ("replace", ""),
    ("rollout", ""),
    ("run", ""),
    ("scale", ""),
    ("set", ""),
    ("taint", ""),
    ("top", ""),
    ("uncordon", ""),
];

/// What to say of a flag, `--long` or `-s`, that a verb does not know, if kubectl does.
pub(crate) fn flag_of(verb: &str, argument: &str) -> Option<String> {
    let is_meant = |flag: &&Flag| {
        let long = argument.strip_prefix("--").map(|name| name == flag.long);
        let short = || argument.strip_prefix('-').map(|name| name == flag.short);
        (flag.verb.is_empty() || flag.verb == verb)
            && long.or_else(short).unwrap_or(false)
            && argument != "-"
    };
    let found = FLAGS.iter().find(is_meant)?;
    let instead = found.instead;
    Some(format!("kubectl's {argument} is not here: {instead}"))
}

/// What to say of a verb that is not known, if kubectl knows it.
pub(crate) fn verb(verb: &str) -> Option<String> {
    let (verb, instead) = VERBS.iter().find(|(known, _)| *known == verb)?;
    Some(format!(
        "kubectl's {verb} is not here: {instead}use kubectl {verb}; \
         this is the tool of the streaming protocols"
    ))
}

/// What to say of a form of output that is not known, if kubectl knows it.
pub(crate) fn output(value: &str) -> Option<String> {
    let form = value.split('=').next().unwrap_or_default();
    let instead = match form {
        "kyaml" => "use -o yaml",
        "go-template" | "go-template-file" | "template" | "templatefile" => {
            "use -o jsonpath, -o custom-columns, or -o json with a program such as jq"
        }
        _ => return None,
    };
    Some(format!("kubectl's -o {form} is not here: {instead}"))
}
