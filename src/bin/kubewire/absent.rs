//! What kubectl has and this program has not: in flows an argument that is not known, out comes
//! what to use instead.

const VERBS: &str = "annotate api-versions apply autoscale certificate cluster-info config cordon \
    create delete describe diff drain edit explain expose kuberc kustomize label options patch plugin \
    replace rollout run scale set taint top uncordon";

const COPIES: &str = "--copy-to --keep-annotations --keep-init-containers --keep-labels \
    --keep-liveness --keep-readiness --keep-startup --replace --same-node --set-image \
    --share-processes";

/// The flags for the output of `wait`.
const WAIT_OUTPUT: &str =
    "--allow-missing-template-keys --output -o --show-managed-fields --template";

fn has(words: &str, word: &str) -> bool {
    words.split(' ').any(|one| one == word)
}

/// What to say of a flag, `--long` or `-s`, that a verb does not know, if kubectl does.
pub(crate) fn flag_of(verb: &str, argument: &str) -> Option<String> {
    let instead = match (verb, argument) {
        ("wait", flag) if has(WAIT_OUTPUT, flag) => {
            "it prints a line an object only; use kubewire get"
        }
        ("wait", "--local") => "there is nothing to wait for without a server",
        ("api-resources", "--cached") => "nothing is cached on disk, so leave it out",
        ("api-resources", "--show-managed-fields") => "it has none, so leave it out",
        ("api-resources", "--allow-missing-template-keys" | "--template") => {
            "use -o name or -o wide"
        }
        ("events", "--chunk-size") => "lists come in pages of 500, so leave it out",
        ("events", "--allow-missing-template-keys") => "use `kubewire get events` with -o jsonpath",
        ("events", "--template") => "write the template behind the form: -o jsonpath=TEMPLATE",
        ("events", "--show-managed-fields") => "use `kubewire get events --show-managed-fields`",
        ("auth whoami", "--allow-missing-template-keys") => "use -o json with a program such as jq",
        ("auth whoami", "--output" | "-o" | "--template") => "it prints a table only; use kubectl",
        ("auth whoami", "--show-managed-fields") => "it has none, so leave it out",
        ("debug", flag) if has(COPIES, flag) => {
            "it is for copies of pods, which are kubectl's: use kubectl debug"
        }
        ("debug", "--custom") => "use --profile, or kubectl debug",
        ("debug", "--filename" | "-f") => "name the pod on the command line",
        ("get", "--kustomize" | "-k") => "use `kubectl kustomize DIR | kubewire get -f -`",
        ("get", "--server-print") => "use -o name, -o custom-columns or -o jsonpath",
        ("version", "--output" | "-o") => "use `kubewire get --raw /version`, which prints JSON",
        (_, "--cache-dir") => "nothing is cached on disk, so leave it out",
        (_, "--kuberc") => "give the flags, or an alias of the shell",
        (_, "--log-flush-frequency") => "what -v shows is written at once, so leave it out",
        (_, "--match-server-version") => "compare what `kubewire version` prints",
        (_, "--password" | "--username") => {
            "put username and password into the kubeconfig's user, or use --token"
        }
        (_, "--profile" | "--profile-output") => "use a profiler of the system, such as perf",
        (_, "--vmodule") => "use -v=9, which shows everything",
        (_, "--warnings-as-errors") => "the server's warnings are not looked at; use kubectl",
        _ => return None,
    };
    Some(format!("kubectl's {argument} is not here: {instead}"))
}

/// What to say of a verb that is not known, if kubectl knows it.
pub(crate) fn verb(verb: &str) -> Option<String> {
    let instead = match verb {
        "api-versions" => "`kubewire get --raw /apis` has the server's own list; or ",
        "describe" => "`kubewire get -o yaml` prints all that is known; or ",
        "options" => "every verb's --help lists all flags; or ",
        _ => "",
    };
    has(VERBS, verb).then(|| {
        format!(
            "kubectl's {verb} is not here: {instead}use kubectl {verb}; \
         this is the tool of the streaming protocols"
        )
    })
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
