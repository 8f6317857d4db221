// Package interop tests dhtstore nodes together with real Kubo daemons, go-libp2p and rust-libp2p. See run.sh.
package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// Environment variable that is set in the copy of the test that runs inside the namespaces.
const inside = "DHTSTORE_INTEROP_INSIDE"

// The absolute paths of the binaries under test. kadNodeBin is examples/kad_node.rs, stock rust-libp2p.
var dhtstoreBin, ipfsBin, kadNodeBin string

// TestMain runs the tests in namespaces of their own. The network namespace has no route to the outside, so no packet
// of a daemon leaves this machine. The kernel ends all processes and removes all interfaces when the test ends, even if
// it crashes.
func TestMain(m *testing.M) {
	if os.Getenv(mixedGoNode) != "" {
		if err := mixedGoNodeMain(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(inside) == "" {
		os.Exit(outer())
	}
	dhtstoreBin, ipfsBin, kadNodeBin = os.Getenv("DHTSTORE_BIN"), os.Getenv("IPFS_BIN"), os.Getenv("KAD_NODE_BIN")
	if err := prepareNetwork(); err != nil {
		fmt.Fprintln(os.Stderr, "cannot prepare the network:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// outer builds the binaries that DHTSTORE_BIN, IPFS_BIN and KAD_NODE_BIN do not name. Then it runs this test again
// inside new namespaces.
func outer() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "cannot make network namespaces without root; run the tests with sudo")
		return 1
	}
	dir, err := os.MkdirTemp("", "dhtstore-interop-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	dhtstoreBin, err = binary("DHTSTORE_BIN", "../../target/debug/dhtstore",
		exec.Command("cargo", "build", "--locked", "--manifest-path", "../../Cargo.toml"))
	if err == nil {
		kadNodeBin, err = binary("KAD_NODE_BIN", "../../target/debug/examples/kad_node",
			exec.Command("cargo", "build", "--locked", "--manifest-path", "../../Cargo.toml", "--example", "kad_node"))
	}
	if err == nil {
		built := filepath.Join(dir, "ipfs")
		ipfsBin, err = binary("IPFS_BIN", built, exec.Command("go", "build", "-o", built, "github.com/ipfs/kubo/cmd/ipfs"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// The scripts that the tests run call `ipfs`, and the given file may have another name.
	if link := filepath.Join(dir, "ipfs"); ipfsBin != link {
		if err := os.Symlink(ipfsBin, link); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		ipfsBin = link
	}
	repos := filepath.Join(dir, "tmp")
	if err := os.Mkdir(repos, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), inside+"=1", "DHTSTORE_BIN="+dhtstoreBin, "IPFS_BIN="+ipfsBin,
		"KAD_NODE_BIN="+kadNodeBin, "TMPDIR="+repos)
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	// Pdeathsig is sent when the *thread* that started the child ends.
	runtime.LockOSThread()
	if err := again.Run(); err != nil {
		if again.ProcessState == nil {
			fmt.Fprintln(os.Stderr, "cannot make namespaces:", err)
		}
		return 1
	}
	return 0
}

func binary(variable, path string, build *exec.Cmd) (string, error) {
	if given := os.Getenv(variable); given != "" {
		path = given
	} else {
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return "", fmt.Errorf("%v: %w", build.Args, err)
		}
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s: %w", variable, err)
	}
	return filepath.Abs(path)
}
