package lwp_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// A mover is a thread that changes what it has a copy of.
type mover struct {
	stage
	dir    [2]byte // "/" and NUL
	umask  atomic.Int64
	errnos [4]atomic.Uint32
	fd     atomic.Int64 // a descriptor that the thread closes
}

func (m *mover) call(i int, trap, a, b, c uintptr) {
	_, _, errno := unix.RawSyscall(trap, a, b, c)
	m.errnos[i].Store(uint32(errno))
}

func moveFS(m *mover) {
	m.dir = [2]byte{'/', 0}
	m.call(0, unix.SYS_CHDIR, uintptr(unsafe.Pointer(&m.dir)), 0, 0)
	old, _, _ := unix.RawSyscall(unix.SYS_UMASK, 0o027, 0, 0)
	m.umask.Store(int64(old))
	stay(&m.stage)
}

func TestPrivateFSIsPrivate(t *testing.T) {
	begin(t)
	lwptest.NeedClone(t, unix.CLONE_FS)
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)

	m := new(mover)
	th := startAttr(t, moveFS, m, lwp.Attr{PrivateFS: true})
	m.up.Wait()
	if got := m.umask.Load(); got != 0o077 {
		t.Errorf("the thread begins with umask %#o, want its starter's", got)
	}
	task := fmt.Sprintf("/proc/self/task/%d/", th.TID())
	if link, _ := os.Readlink(task + "cwd"); link != "/" {
		t.Errorf("the thread is in %q", link)
	}
	checkFS(t, dir, 0o077)
	m.leave.Raise()
	join(t, th)
	checkFS(t, dir, 0o077)

	// Without the attribute the same is seen by all.
	m = new(mover)
	th = start(t, moveFS, m)
	m.up.Wait()
	checkFS(t, "/", 0o027)
	m.leave.Raise()
	join(t, th)
}

func checkFS(t *testing.T, dir string, umask int) {
	t.Helper()
	if got, _ := os.Readlink("/proc/self/cwd"); got != dir {
		t.Errorf("the process is in %q, want %q", got, dir)
	}
	got := syscall.Umask(umask)
	if got != umask {
		t.Errorf("the process has umask %#o, want %#o", got, umask)
	}
}

func TestPrivateFilesArePrivate(t *testing.T) {
	begin(t)
	lwptest.NeedClone(t, unix.CLONE_FILES)
	for _, private := range []bool{true, false} {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		fd := int(f.Fd())
		m := new(mover)
		m.fd.Store(int64(fd))
		th := startAttr(t, func(m *mover) {
			m.call(0, unix.SYS_CLOSE, uintptr(m.fd.Load()), 0, 0)
			m.call(1, unix.SYS_CLOSE, uintptr(m.fd.Load()), 0, 0)
			stay(&m.stage)
		}, m, lwp.Attr{PrivateFiles: private})
		m.up.Wait()
		if first, second := m.errnos[0].Load(), m.errnos[1].Load(); first != 0 || syscall.Errno(second) != unix.EBADF {
			t.Errorf("private %v: close gives %d, then %d", private, first, second)
		}
		_, err = f.Stat()
		if private && err != nil || !private && !errors.Is(err, unix.EBADF) {
			t.Errorf("private %v: after the thread has closed it, Stat gives %v", private, err)
		}
		m.leave.Raise()
		join(t, th)
		f.Close()
	}
}

func link(t *testing.T, tid int, kind string) string {
	t.Helper()
	s, err := os.Readlink("/proc/self/task/" + strconv.Itoa(tid) + "/ns/" + kind)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var hostname = []byte("of-one-thread")

func TestNamespacesOfOneThread(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "namespaces")
	lwptest.NeedCap(t, unix.CAP_SYS_ADMIN)
	kinds := map[string]uintptr{
		"uts": unix.CLONE_NEWUTS, "ipc": unix.CLONE_NEWIPC, "net": unix.CLONE_NEWNET,
		"mnt": unix.CLONE_NEWNS, "cgroup": unix.CLONE_NEWCGROUP,
	}
	all := uintptr(0)
	for kind, flag := range kinds {
		if _, err := os.Stat("/proc/self/ns/" + kind); err != nil {
			t.Logf("this kernel has no namespace %s", kind)
			continue
		}
		all |= flag
		checkNamespaces(t, kinds, flag)
	}
	checkNamespaces(t, kinds, all)

	// What is done in one stays there.
	before, _ := os.Hostname()
	m := new(mover)
	th := startAttr(t, func(m *mover) {
		m.call(0, unix.SYS_SETHOSTNAME, uintptr(unsafe.Pointer(&hostname[0])), uintptr(len(hostname)), 0)
		stay(&m.stage)
	}, m, lwp.Attr{Namespaces: unix.CLONE_NEWUTS})
	m.up.Wait()
	if errno := syscall.Errno(m.errnos[0].Load()); errno != 0 {
		t.Error("sethostname: ", errno)
	}
	if after, _ := os.Hostname(); after != before {
		t.Errorf("the host is called %q now", after)
	}

	// A second thread enters it, by the descriptor and no other type.
	ns, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/uts", th.TID()))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for _, types := range [][]int{nil, {unix.CLONE_NEWUTS}} {
		th2, s2 := stays(t, lwp.Attr{Enter: []int{int(ns.Fd())}, EnterTypes: types})
		if got, want := link(t, th2.TID(), "uts"), link(t, th.TID(), "uts"); got != want {
			t.Errorf("entered %s, want %s", got, want)
		}
		s2.leave.Raise()
		join(t, th2)
	}
	for range lwptest.Count(300, 50) {
		th2, err := lwp.StartAttr(come, new(stage), lwp.Attr{Enter: []int{int(ns.Fd())}, EnterTypes: []int{unix.CLONE_NEWNET}})
		checkRefusal(t, "wrong type", th2, err, "setns", unix.EINVAL)
	}
	m.leave.Raise()
	join(t, th)
}

func checkNamespaces(t *testing.T, kinds map[string]uintptr, flags uintptr) {
	t.Helper()
	th, s := stays(t, lwp.Attr{Namespaces: flags, PrivateFS: flags&unix.CLONE_NEWNS != 0})
	for kind, flag := range kinds {
		own := link(t, th.TID(), kind) != link(t, os.Getpid(), kind)
		if own != (flags&flag != 0) {
			t.Errorf("flags %#x: the thread has a namespace %s of its own: %v", flags, kind, own)
		}
	}
	s.leave.Raise()
	join(t, th)
}

// TestEnterByPidfd enters several namespaces of another process at once.
func TestEnterByPidfd(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "namespaces")
	lwptest.NeedCap(t, unix.CAP_SYS_ADMIN)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	c := exec.Command(sleep, "1000")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS | unix.CLONE_NEWIPC, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Skip("no process in namespaces of its own: ", err)
	}
	defer func() {
		c.Process.Kill()
		c.Wait()
	}()
	fd, err := unix.PidfdOpen(c.Process.Pid, 0)
	if err != nil {
		t.Skip("pidfd_open: ", err)
	}
	defer unix.Close(fd)
	th, s := stays(t, lwp.Attr{Enter: []int{fd}, EnterTypes: []int{unix.CLONE_NEWUTS | unix.CLONE_NEWIPC}})
	for _, kind := range []string{"uts", "ipc"} {
		want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.Process.Pid, kind))
		if got := link(t, th.TID(), kind); err != nil || got != want {
			t.Errorf("the thread is in %s, the process in %s, %v", got, want, err)
		}
	}
	s.leave.Raise()
	join(t, th)
}
