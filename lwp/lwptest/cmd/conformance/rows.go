package main

// A row is one program of a test suite: what it is called there, and what must
// hold, in our words.
type row struct {
	name   string
	checks string
	not    string // why it cannot apply, or empty
}

// A group is rows that one package of this module covers.
type group struct {
	title string
	pkg   string
	rows  []row
}

var groups = []group{
	{"Linux Test Project: clone", "lwprt/lwp", []row{
		{"clone01", "the child runs; the wait reports the ID that clone returned", ""},
		{"clone02", "everything shared: the parent sees the child's change of memory, descriptors, directory, umask and handler; nothing shared: none. A file's offset is one either way", ""},
		{"clone03", "getpid in the child is what clone returned", ""},
		{"clone04", "a NULL stack with a function: EINVAL", ""},
		{"clone05", "CLONE_VFORK: the parent does not run until the child is gone", ""},
		{"clone06", "the child sees the environment", ""},
		{"clone07", "returning from the child's function does not crash", ""},
		{"clone08", "CLONE_PARENT, PARENT_SETTID, CHILD_SETTID, CHILD_CLEARTID, THREAD, SETTLS, and what STOPPED has become, one by one", ""},
		{"clone09", "CLONE_NEWNET: a fresh network", ""},
		{"clone10", "CLONE_VM with CLONE_SETTLS: a thread-local variable of the child's is not the parent's", ""},
		{"clone11", "namespace flags without CAP_SYS_ADMIN: EPERM", ""},
		{"clone301", "clone3: exit signal, pidfd, parent_tid and child_tid as asked", ""},
		{"clone302", "clone3: a bad address, sizes too small and too large, invalid flags and pairs, a bad pidfd, exit signal, stack or stack size alone", ""},
		{"clone303", "CLONE_INTO_CGROUP puts the child there", ""},
		{"clone304", "set_tid without the capability: EPERM", ""},
	}},
	{"Linux Test Project: fork and vfork", "lwprt/lwp", []row{
		{"fork01", "the child's exit status and ID are right", ""},
		{"fork03", "a child with much work", ""},
		{"fork04", "the environment is copied, not shared", ""},
		{"fork05", "segment registers and the LDT survive", "segments and the LDT of i386"},
		{"fork07", "many children inherit a descriptor, and share its offset", ""},
		{"fork08", "closing in the child leaves the parent's descriptors", ""},
		{"fork09", "the child may close and reopen all", ""},
		{"fork10", "the parent sees the offset that the child has set", ""},
		{"fork13", "IDs are not used again at once", ""},
		{"fork14", "fork with more than 16 TiB mapped works or fails cleanly", ""},
		{"fork_procs", "many children, each reaped under its own ID", ""},
		{"vfork01", "IDs, umask, root and working directory are the parent's", ""},
		{"vfork02", "what is pending in the parent is not in the child", ""},
	}},
	{"Linux Test Project: unshare and setns", "lwprt/lwp", []row{
		{"unshare01", "each flag succeeds where it is allowed", ""},
		{"unshare02", "bad flags: EINVAL; without privilege: EPERM", ""},
		{"unshare03", "a descriptor above a limit that was lowered: EMFILE", ""},
		{"unshare04", "CLONE_NEWNS unshares the working directory", ""},
		{"unshare05", "CLONE_NEWPID: the first child is process 1", ""},
		{"setns01", "EBADF, EINVAL, EPERM", ""},
		{"setns02", "back in the parent's UTS and IPC namespaces, host name and shared memory are the parent's", ""},
	}},
	{"Linux Test Project: identity and signals", "lwprt/lwp", []row{
		{"gettid01", "the first thread's ID is the process's", ""},
		{"gettid02", "every thread has its own ID, and one process", ""},
		{"set_tid_address01", "returns the caller's ID", ""},
		{"tgkill01", "the signal reaches exactly the thread named", ""},
		{"tgkill02", "at RLIMIT_SIGPENDING: EAGAIN", ""},
		{"tgkill03", "EINVAL and ESRCH", ""},
		{"tkill01", "the signal arrives", ""},
		{"tkill02", "EINVAL and ESRCH", ""},
		{"kcmp01", "0 for the same open file, else not", ""},
		{"kcmp02", "ESRCH, EBADF, EINVAL", ""},
		{"kcmp03", "FS, IO, SYSVSEM, VM and the rest are equal after a clone with the flag, and only then", ""},
		{"sigaltstack01", "the handler runs on the alternate stack", ""},
		{"sigaltstack02", "bad flags: EINVAL; too small: ENOMEM", ""},
	}},
	{"Linux Test Project: scheduling", "lwprt/lwp", []row{
		{"sched_getaffinity01", "the set is read back; EFAULT, EINVAL, ESRCH", ""},
		{"sched_setaffinity01", "the set is taken; EFAULT, EINVAL, ESRCH, EPERM", ""},
		{"sched_setattr01", "attributes are set; ESRCH, EINVAL", ""},
		{"sched_setscheduler01", "ESRCH, EINVAL", ""},
		{"sched_setscheduler02", "without privilege: EPERM", ""},
		{"sched_setscheduler03", "each policy is set", ""},
		{"sched_setscheduler04", "SCHED_RESET_ON_FORK: the child has the default", ""},
		{"sched_yield01", "succeeds", ""},
	}},
	{"Linux Test Project: pidfd", "lwprt/lwp", []row{
		{"pidfd_open01", "the descriptor is close-on-exec", ""},
		{"pidfd_open02", "ESRCH, EINVAL", ""},
		{"pidfd_open03", "readable when the child has ended", ""},
		{"pidfd_open04", "PIDFD_NONBLOCK: waitid gives EAGAIN", ""},
		{"pidfd_getfd01", "the same open file, by kcmp; close-on-exec", ""},
		{"pidfd_getfd02", "EBADF, EINVAL, EPERM, ESRCH", ""},
		{"pidfd_send_signal01", "what was sent with the signal arrives", ""},
		{"pidfd_send_signal02", "EINVAL, EBADF, EPERM", ""},
		{"pidfd_send_signal03", "never a process that has the ID again", ""},
	}},
	{"Kernel selftests: clone3", "lwprt/lwp", []row{
		{"clone3", "sizes: first version good, smaller EINVAL, larger with zeros good, larger with more or beyond a page E2BIG; exit signals that are none EINVAL; the same in a new PID namespace", ""},
		{"clone3_set_tid", "too many IDs, 0, -1, pid_max: EINVAL; 1: EEXIST outside, good in a new namespace; a free ID is used again; three nested namespaces show their three IDs", ""},
		{"clone3_clear_sighand", "handlers are reset, ignored signals stay; with CLONE_SIGHAND EINVAL", ""},
		{"clone3_cap_checkpoint_restore", "set_tid with CAP_CHECKPOINT_RESTORE alone, and not without", ""},
	}},
	{"Kernel selftests: pidfd", "lwprt/lwp", []row{
		{"pidfd_test", "signals by descriptor, also to zombies and to what had the ID before; exec; a leader that exits first", ""},
		{"pidfd_open_test", "bad IDs and flags; fdinfo", ""},
		{"pidfd_poll_test", "poll tells the end, of the last thread", ""},
		{"pidfd_wait", "stopped, continued and killed, by descriptor", ""},
		{"pidfd_getfd_test", "a copy of another's descriptor; errors", ""},
		{"pidfd_setns_test", "every namespace by descriptor", ""},
		{"pidfd_info_test", "IDs and exit information", ""},
	}},
	{"Linux Test Project: futex", "lwprt/futex", []row{
		{"futex_wait01", "a mismatch returns at once; a timeout is kept", ""},
		{"futex_wait02", "a wake through shared memory between processes", ""},
		{"futex_wait03", "a private wake between threads", ""},
		{"futex_wait04", "a zero page that was never touched: returns at once", ""},
		{"futex_wait05", "a relative timeout is kept within tolerance", ""},
		{"futex_wait06", "an address or a timeout that is not mapped: EFAULT", ""},
		{"futex_wait07", "a signal: EINTR", ""},
		{"futex_wait_bitset01", "an absolute timeout is kept within tolerance", ""},
		{"futex_wake01", "nobody waits: 0", ""},
		{"futex_wake02", "n threads are woken", ""},
		{"futex_wake03", "n processes are woken", ""},
		{"futex_wake04", "two words in one shared huge page are two futexes", ""},
		{"futex_wake05", "not mapped, not accessible, behind the end of a file: EFAULT", ""},
		{"futex_cmp_requeue01", "n woken, m moved, the sums are right", ""},
		{"futex_cmp_requeue02", "negative counts: EINVAL; a mismatch: EAGAIN", ""},
		{"futex_cmp_requeue03", "bad addresses: EFAULT", ""},
		{"futex_waitv01", "EINVAL for what is not valid", ""},
		{"futex_waitv02", "a wake by index, private", ""},
		{"futex_waitv03", "a wake by index, shared", ""},
		{"set_robust_list01", "the length is checked", ""},
		{"get_robust_list01", "one's own list and another's; EFAULT, ESRCH, EPERM", ""},
	}},
	{"Kernel selftests: futex", "lwprt/futex", []row{
		{"futex_requeue", "1 waiter; of 10 waiters 3 woken, 7 moved", ""},
		{"futex_requeue_pi", "wait-requeue-pi: broadcast, locked, owned by a third, with a timeout; 10 real-time waiters", ""},
		{"futex_requeue_pi_mismatched_ops", "a plain wait and then requeue-pi is refused", ""},
		{"futex_requeue_pi_signal_restart", "a signal before or after the requeue restarts correctly", ""},
		{"futex_wait", "private, shared, file-backed", ""},
		{"futex_wait_private_mapped_file", "a private mapping of a file", ""},
		{"futex_wait_uninitialized_heap", "a zero page", ""},
		{"futex_wait_timeout", "every waiting operation times out on every clock, relative and absolute", ""},
		{"futex_wait_wouldblock", "a mismatch: EWOULDBLOCK, futex and waitv", ""},
		{"futex_waitv", "private, shared, invalid flag, unaligned, NULL, invalid clock; the index of the one of 30 that was woken", ""},
		{"robust_list", "the death of an owner marks and wakes; wrong sizes; a pending operation; several locks and waiters; a circular list", ""},
		{"futex_lock_pi_exiting", "lock-pi against an owner that is exiting", ""},
	}},
}
