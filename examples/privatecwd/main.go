// Command privatecwd gives a thread a working directory and a umask of its own,
// and shows what a thread does that has none of its own.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
	"lwprt/lwp"
)

// A visit is what a thread is told to do, and what it found. Paths are bytes
// and end in a NUL, as system calls want them.
type visit struct {
	dir  [unix.PathMax]byte
	file [16]byte
	mask int

	cwd   [unix.PathMax]byte
	errno syscall.Errno

	arrived, leave futex.Event
}

// visitor runs on the thread.
func visitor(v *visit) {
	v.errno = v.move()
	v.arrived.Set()
	v.leave.Wait()
}

// move goes to v.dir, sets the umask and creates v.file there, by bare system
// calls: os.Chdir and os.Create need the Go runtime.
func (v *visit) move() syscall.Errno {
	if _, _, errno := unix.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(&v.dir)), 0, 0); errno != 0 {
		return errno
	}
	unix.RawSyscall(unix.SYS_UMASK, uintptr(v.mask), 0, 0)
	if _, _, errno := unix.RawSyscall(unix.SYS_GETCWD, uintptr(unsafe.Pointer(&v.cwd)), unsafe.Sizeof(v.cwd), 0); errno != 0 {
		return errno
	}
	here := unix.AT_FDCWD
	fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(here), uintptr(unsafe.Pointer(&v.file)),
		unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o666, 0, 0)
	if errno == 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	return errno
}

// send starts a visitor, which moves to dir and creates file there, and
// returns when it has done so.
func send(attr lwp.Attr, dir, file string, mask int) (lwp.Thread, *visit, error) {
	v := &visit{mask: mask}
	if len(dir) >= len(v.dir) || len(file) >= len(v.file) {
		return lwp.Thread{}, nil, syscall.ENAMETOOLONG
	}
	copy(v.dir[:], dir)
	copy(v.file[:], file)
	t, err := lwp.StartAttr(visitor, v, attr)
	if err != nil {
		return t, nil, err
	}
	v.arrived.Wait()
	if v.errno != 0 {
		return t, nil, errors.Join(v.errno, v.end(t))
	}
	return t, v, nil
}

func (v *visit) end(t lwp.Thread) error {
	v.leave.Set()
	return t.Join()
}

// look prints where a task is and what its umask is, from its /proc directory.
func look(who, task string) error {
	cwd, err := os.Readlink(task + "/cwd")
	if err != nil {
		return err
	}
	mask, err := umask(task)
	fmt.Printf("   %-20s cwd %s, umask %04o\n", who+":", cwd, mask)
	return err
}

func umask(task string) (int, error) {
	status, err := os.ReadFile(task + "/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "\nUmask:")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(line), 8, 32)
	return int(mask), err
}

func created(who, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	fmt.Printf("   %-20s created %s, asked for mode 0666, got %04o\n", who+":", path, info.Mode().Perm())
	return nil
}

// create makes a file as the rest of the process does it.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), created("process", path))
}

const process = "/proc/self"

func private(dir string, mask int) error {
	fmt.Println("1. A thread with PrivateFS: clone(2) without CLONE_FS")
	if err := look("process, before", process); err != nil {
		return err
	}
	t, v, err := send(lwp.Attr{PrivateFS: true}, dir, "private", mask)
	if err != nil {
		return err
	}
	fmt.Printf("   %-20s getcwd(2) gives %s\n", "thread:", unix.ByteSliceToString(v.cwd[:]))
	task := fmt.Sprintf("%s/task/%d", process, t.TID())
	err = errors.Join(
		look("thread", task),
		look("process, meanwhile", process),
		created("thread", filepath.Join(dir, "private")),
		create(filepath.Join(dir, "main")),
		v.end(t))
	fmt.Print("\n   Working directory, root and umask stand in one kernel object. With CLONE_FS a\n" +
		"   new thread shares its starter's; without it the thread gets a copy. The Go\n" +
		"   runtime makes all of its threads with CLONE_FS, since a goroutine has to find\n" +
		"   the same directory whichever thread it runs on.\n\n")
	return err
}

func shared(dir string, mask int) error {
	fmt.Println("2. A thread as it is by default: clone(2) with CLONE_FS")
	old, err := os.Open(".") // finds the way back even if the directory is renamed
	if err != nil {
		return err
	}
	defer old.Close()
	oldMask, err := umask(process)
	if err := errors.Join(err, look("process, before", process)); err != nil {
		return err
	}
	t, v, err := send(lwp.Attr{}, dir, "shared", mask)
	if err != nil {
		return err
	}
	err = errors.Join(
		look("process, meanwhile", process),
		create("relative"), // where the thread went
		v.end(t),
		look("process, after", process))

	unix.Umask(oldMask)
	err = errors.Join(err, old.Chdir(), look("process, put back", process))
	fmt.Print("\n   What this thread changed it changed for all, and it stayed changed when the\n" +
		"   thread had ended.\n")
	return err
}

func run() error {
	dir, err := os.MkdirTemp("", "privatecwd")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	now, err := umask(process)
	if err != nil {
		return err
	}
	mask := 0o027
	if now == mask {
		mask = 0o077 // one that makes a difference
	}
	err = private(dir, mask)
	var refused *lwp.Error
	if errors.As(err, &refused) && refused.Op == "clone" && refused.Errno == syscall.EINVAL {
		fmt.Print("\n   This program needs clone(2) to make a thread without CLONE_FS. Linux does;\n" +
			"   qemu-user, for one, refuses with EINVAL.\n")
	}
	if err != nil {
		return err
	}
	return shared(dir, mask)
}

func main() {
	if err := run(); err != nil {
		log.Fatal("privatecwd: ", err)
	}
}
