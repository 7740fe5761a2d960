#!/bin/sh
# made by `holdfast trail enable`, which `holdfast trail disable` removes.
# Names the active trail in a trailer of each commit's message. It never stops a commit.

if [ -x "$0.before-trail" ]; then # the hook that was here before
	"$0.before-trail" "$@" || exit
fi

LC_ALL=C
export LC_ALL
message=$1 source=$2
data_dir=${TRAJECTORIES_DATA_DIR:-}
[ -n "$data_dir" ] || data_dir=@DATA_DIR@

is_id() { # is this the id of a trail?
	case $1 in
	traj_*[!a-z0-9_]* | traj_) return 1 ;;
	traj_*) return 0 ;;
	esac
	return 1
}

active_in() { # the trails that are active in a folder: the newest file of each, and its id
	for file in "$1"/active/traj_*; do
		id=${file##*/}
		if [ -d "$file" ]; then
			file=$file/trajectory.json
		else
			case $id in
			*.jsonl) id=${id%.jsonl} ;;
			*.json) id=${id%.json} && [ ! -f "${file}l" ] || continue ;;
			*) continue ;;
			esac
		fi
		is_id "$id" && [ -f "$file" ] && [ ! -L "$file" ] && "$2" || :
	done
}

newest() { # of all: the one last written to
	if [ -z "$found" ] || [ "$file" -nt "$newest_file" ]; then
		found=$id newest_file=$file
	fi
}

begun_by() { # of those whose beginning says so
	case $value in
	'' | *[!A-Za-z0-9._@:/+-]*) return 0 ;;
	esac
	case $file in
	*.jsonl)
		IFS= read -r first <"$file"
		case $first in *"\"$key\":\"$value\""*) newest ;; esac
		;;
	*) [ "$key" = agent ] && grep -qF "\"name\": \"$value\"" "$file" && newest ;;
	esac
}

resumed() { # of those that `trail resume` chose
	[ "$id" = "$chosen" ] && found=$id
}

trail_in() { # which trail of a folder the commit is made in
	found=
	for key in session agent; do
		[ "$key" = session ] && value=${TRAJECTORIES_SESSION:-} || value=${TRAJECTORIES_AGENT:-}
		[ -n "$value" ] && active_in "$1" begun_by
		[ -z "$found" ] || return 0
	done
	last=
	for file in "$1"/.cache/resumed/*; do
		[ -f "$file" ] && { [ -z "$last" ] || [ "$file" -nt "$last" ]; } && last=$file
	done
	if [ -n "$last" ]; then
		chosen=$(cat "$last")
		active_in "$1" resumed
		[ -z "$found" ] || return 0
	fi
	active_in "$1" newest
}

trail() { # which trail the commit is made in
	found=${TRAJECTORIES_ID:-}
	is_id "$found" && return 0
	case $data_dir in
	'') set -- .trajectories .agentworkforce/trajectories ;;
	'~' | '~/'*) set -- "$HOME${data_dir#'~'}" ;;
	*) set -- "$data_dir" ;;
	esac
	for folder; do
		for place in "${GIT_PREFIX:-}$folder" "$folder"; do
			case $folder in /*) place=$folder ;; esac
			[ -d "$place/active" ] || continue
			case $place in /*) ;; *) place=./$place ;; esac
			trail_in "$place"
			[ -z "$found" ] || return 0
		done
	done
}

text() { # what the message says so far, without comments and what git shows below its cut
	sed '/------------------------ >8 ------------------------$/,$d' "$message" | git stripspace --strip-comments
}

add() { # the trailer, unless there is one
	is_id "$1" && git interpret-trailers --in-place --no-divider --if-exists doNothing \
		--trailer "Trajectory: $1" "$message"
}

later=$(git rev-parse --git-dir)/trail-of-message # what prepare-commit-msg leaves for commit-msg
case $0 in
*prepare-commit-msg)
	rm -f "$later"
	for rebase in rebase-merge rebase-apply; do # commits of other times, made anew
		[ ! -d "$(git rev-parse --git-dir)/$rebase" ] || source=commit
	done
	case $source in
	merge | squash | commit) ;;
	'' | template) trail; is_id "$found" && { echo "$found"; text; } >"$later" ;;
	*) trail; add "$found" ;;
	esac
	;;
*)
	if [ -f "$later" ]; then
		[ "$(sed 1d "$later")" = "$(text)" ] || add "$(sed 1q "$later")"
		rm -f "$later"
	fi
	;;
esac 2>/dev/null
exit 0
