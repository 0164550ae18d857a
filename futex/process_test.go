package futex_test

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
)

// A common is what processes of a test have in common, in a shared mapping.
type common struct {
	world
	pi     futex.PIMutex
	picond futex.PICond
	rob    futex.RobustMutex
	word   [64]uint32
	tid    uint32 // of a role's thread
	ready  uint32 // how many have come as far as they are to be waited for
	count  [2]uint64
	owner  uint32
	deaths uint32
}

const roleVar = "FUTEX_TEST_ROLE"

// roles are what a process can be that spawn has started. What it returns is its
// exit status.
var roles = map[string]func(*common) int{}

// playRole is the main program of such a process.
func playRole(name string) int {
	c, err := mapCommon(3)
	if err != nil {
		os.Stderr.WriteString(err.Error())
		return 99
	}
	role := roles[name]
	if role == nil {
		return 98
	}
	status := make(chan int)
	go func() { status <- role(c) }()
	go func() {
		// A test that was killed leaves nobody behind.
		for parent := os.Getppid(); os.Getppid() == parent; time.Sleep(time.Second) {
		}
		status <- 97
	}()
	return <-status
}

func mapCommon(fd int) (*common, error) {
	mem, err := unix.Mmap(fd, 0, int(unsafe.Sizeof(common{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*common)(unsafe.Pointer(&mem[0])), nil
}

// newCommon returns fresh memory for processes, and the file that it is of.
func newCommon(t testing.TB) (*common, *os.File) {
	t.Helper()
	fd, err := unix.MemfdCreate("futex", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "memfd")
	t.Cleanup(func() { file.Close() })
	if err := file.Truncate(int64(unsafe.Sizeof(common{}))); err != nil {
		t.Fatal(err)
	}
	c, err := mapCommon(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(c)), unsafe.Sizeof(*c)))
		}
	})
	return c, file
}

// spawn starts this program again, in a role. The process is killed when the
// test ends.
func spawn(t testing.TB, file *os.File, role string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start := func(args ...string) (*exec.Cmd, error) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), roleVar+"="+role, "GOMAXPROCS=2")
		cmd.ExtraFiles = []*os.File{file}
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		return cmd, cmd.Start()
	}
	cmd, err := start(self)
	if errors.Is(err, syscall.ENOEXEC) {
		emulator, look := exec.LookPath(map[string]string{"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}[runtime.GOARCH])
		if look != nil {
			t.Skip("cannot run another process under emulation: ", look)
		}
		cmd, err = start(emulator, self)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

// ended waits for a process of spawn that ends by itself.
func ended(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("a process ended with %v", err)
		}
	case <-time.After(hang):
		t.Errorf("waited %v for a process", hang)
		cmd.Process.Kill()
		<-done
	}
}

// sharedSleepers is sleepers for waits that are not private.
func sharedSleepers(addr *uint32) int {
	n, err := futex.Shared.Requeue(addr, addr, 0, futex.All)
	if err != nil {
		panic(err)
	}
	return n
}

// taskStat returns the fields of a task's stat file from the third on, its state.
func taskStat(pid, tid int) []string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(tid) + "/stat")
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.Fields(rest)
}

// inKernel waits until a task that is about to sleep does so.
func inKernel(t testing.TB, pid int, tid *uint32) {
	t.Helper()
	asleepNow := func() bool {
		id := atomic.LoadUint32(tid)
		f := taskStat(pid, int(id))
		return id != 0 && f != nil && f[0] == "S"
	}
	for seen, end := 0, time.Now().Add(hang); seen < 3; time.Sleep(time.Millisecond) {
		if seen++; !asleepNow() {
			seen = 0
		}
		if time.Now().After(end) {
			t.Fatalf("waited %v for task %d to sleep", hang, *tid)
		}
	}
}

// priority returns the priority that a task runs at: 1 to 99 of a real-time policy,
// or 0.
func priority(pid int, tid uint32) int {
	f := taskStat(pid, int(tid))
	if f == nil {
		return -1
	}
	p, _ := strconv.Atoi(f[15])
	return max(-1-p, 0)
}

// needPI skips the test where the kernel has no priority inheritance.
func needPI(t testing.TB) {
	t.Helper()
	x := new(uint32)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := futex.Private.TrylockPI(x); errors.Is(err, syscall.ENOSYS) {
		t.Skip("no FUTEX_LOCK_PI here: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := futex.Private.UnlockPI(x); err != nil {
		t.Fatal(err)
	}
}

// needRequeuePI skips where only that is missing.
func needRequeuePI(t testing.TB) {
	t.Helper()
	needPI(t)
	x := new([2]uint32)
	if _, _, err := futex.Private.CmpRequeuePI(&x[0], 0, &x[1], 0); errors.Is(err, syscall.ENOSYS) {
		t.Skip("no FUTEX_CMP_REQUEUE_PI here: ", err)
	}
}

// needRobust skips the test where the kernel has no robust lists: qemu-user.
func needRobust(t testing.TB) {
	t.Helper()
	if _, err := futex.GetRobustList(0); errors.Is(err, syscall.ENOSYS) {
		t.Skip("no robust lists here: ", err)
	}
	if err := probe.Lock(); err == futex.ErrForeignList {
		t.Skip("goroutines run on threads of the C library: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	probe.Unlock()
}

var probe futex.RobustMutex

// needWaitv skips the test before Linux 5.16, and under qemu-user.
func needWaitv(t testing.TB) {
	t.Helper()
	x := new(uint32)
	if _, _, err := futex.Waitv([]futex.Word{futex.Private.On(x, 1)}, futex.Never); errors.Is(err, syscall.ENOSYS) {
		t.Skip("no futex_waitv(2) here: ", err)
	}
}
