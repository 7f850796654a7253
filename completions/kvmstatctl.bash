# SPDX-License-Identifier: Apache-2.0
# Completion of kvmstatctl's commands, options and VMs for bash.

_kvmstatctl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command="" i
    local common="--address --cacert --user --help" options="" line
    COMPREPLY=()
    # Some options may stand before the command.
    for ((i = 1; i < COMP_CWORD && !${#command}; i++)); do
        case ${COMP_WORDS[i]} in
        --address | --cacert | --user) ((i++)) ;;
        -*) ;;
        *) command=${COMP_WORDS[i]} ;;
        esac
    done
    case $command in
    "") options="$common --version" ;;
    list) options="--json --names $common" ;;
    top) options="--interval --sort $common" ;;
    csv) options="--vm --stat --last --interval $common" ;;
    dump) options="--json --stat --vcpu --csv --vm --last $common" ;;
    esac
    case $before in
    --sort)
        mapfile -t COMPREPLY < <(compgen -W "exits peak cpu wait halt name" -- "$word")
        return
        ;;
    --cacert)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --address | --user | --interval | --last | --stat | --vcpu) return ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
        return
    fi
    if [[ -z $command ]]; then
        mapfile -t COMPREPLY < <(compgen -W "list top csv dump" -- "$word")
        return
    fi
    [[ $command == csv && $before != --vm ]] && return
    # Names are anybody's: they are compared and quoted, never expanded.
    while IFS= read -r line; do
        [[ $line == "$word"* ]] && COMPREPLY+=("$(printf %q "$line")")
    done < <("${COMP_WORDS[0]}" list --names 2>/dev/null)
    if [[ $command == dump && $before != --vm ]]; then
        while IFS= read -r line; do
            COMPREPLY+=("$line")
        done < <(compgen -f -- "$word")
    fi
}
complete -F _kvmstatctl kvmstatctl
