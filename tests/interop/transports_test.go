package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
)

// newCertificate makes a self-signed certificate for an IP address. It returns the PEM files of the certificate and its
// key, and a pool that trusts it.
func newCertificate(t *testing.T, ip string) (certificate, key string, trusted *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.ParseIP(ip)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	certificate, key = filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem")
	trusted = x509.NewCertPool()
	for path, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if path == certificate && !trusted.AppendCertsFromPEM(pem.EncodeToMemory(block)) {
			t.Fatal("the pool does not accept the certificate")
		}
	}
	return certificate, key, trusted
}

// NET-2, NET-3, NET-5: a go-libp2p node with a single transport and a single security protocol joins through our
// server, announces a CID, and finds it.
func TestGoAnnouncesOverEachTransport(t *testing.T) {
	server := newDhtstore(t)
	certificate, key, trusted := newCertificate(t, server.ip)
	listen := []string{"/tcp/4001", "/udp/4001/quic-v1", "/tcp/4002/ws", "/tcp/4003/tls/ws"}
	arguments := []string{"--set", "websocket.certificate=" + certificate, "--set", "websocket.key=" + key}
	for n, at := range listen {
		listen[n] = "/ip4/" + server.ip + at
		arguments = append(arguments, "--listen", listen[n])
	}
	server.start(arguments...)
	id := server.id()
	trusting := websocket.WithTLSClientConfig(&tls.Config{RootCAs: trusted})
	for _, test := range []struct {
		name, dialled, listens, security string
		options                          []libp2p.Option
	}{
		{"TCP and noise", listen[0], "/tcp/0", noise.ID, []libp2p.Option{
			libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(noise.ID, noise.New)}},
		{"TCP and TLS", listen[0], "/tcp/0", libp2ptls.ID, []libp2p.Option{
			libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(libp2ptls.ID, libp2ptls.New)}},
		{"QUIC", listen[1], "/udp/0/quic-v1", "", []libp2p.Option{libp2p.Transport(libp2pquic.NewTransport)}},
		{"WebSocket", listen[2], "/tcp/0/ws", noise.ID, []libp2p.Option{
			libp2p.Transport(websocket.New), libp2p.Security(noise.ID, noise.New)}},
		{"secure WebSocket", listen[3], "/tcp/0/ws", noise.ID, []libp2p.Option{
			libp2p.Transport(websocket.New, trusting), libp2p.Security(noise.ID, noise.New)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := joinNetwork(); err != nil {
				t.Fatal(err)
			}
			h, err := libp2p.New(append(test.options, libp2p.DisableRelay(),
				libp2p.ResourceManager(&network.NullResourceManager{}),
				libp2p.ListenAddrStrings("/ip4/"+ownPrivate+test.listens))...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { h.Close() })
			g := newGoNodeOf(t, h, lan, test.dialled+"/p2p/"+id, dht.ModeServer)
			for _, connection := range h.Network().ConnsToPeer(g.server.ID) {
				if connection.Stat().Direction != network.DirOutbound {
					continue
				}
				// go-libp2p uses an older form of secure WebSocket addresses.
				at := strings.Replace(connection.RemoteMultiaddr().String(), "/wss", "/tls/ws", 1)
				state := connection.ConnState()
				if at != test.dialled || string(state.Security) != test.security && test.security != "" {
					t.Fatalf("connected to %s over %s", at, state.Security)
				}
			}
			server.eventually("go has us in its table", g.hasServer)
			content := cid.NewCidV1(cid.Raw, multihashOf(t, test.name))
			if err := g.Provide(g.context(), content, true); err != nil {
				t.Fatal(err)
			}
			server.eventually("we hold the record with its address", func() bool {
				held := strings.Join(server.holds(content.String(), h.ID().String()), "\n")
				return strings.Contains(held, "/ip4/"+ownPrivate+"/")
			})
			found, err := g.FindProviders(g.context(), content)
			if err != nil || len(found) != 1 || found[0].ID != h.ID() {
				t.Fatalf("%v: found %v", err, found)
			}
			// To admit it, our server dials it back over its only transport.
			server.eventually("go is in our table", func() bool { return server.hasInTable(h.ID().String()) })
		})
	}
}
