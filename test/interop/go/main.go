// A Privacy Pass client, issuer and origin of their own, on cloudflare/circl (RFC 9474, RFC 9497): the other side
// of the interoperability tests. One JSON object a line on standard input, one answer a line on standard output.
// The framing of RFC 9578 and of the batched-tokens draft is written here a second time, from the text.
package main

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/cloudflare/circl/blindsign/blindrsa"
	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/oprf"
	"github.com/cloudflare/circl/zk/dleq"
)

type command struct {
	Op        string
	TokenType uint16
	TokenKey  []byte
	Digest    []byte
	Count     int
	ID        int
	Body      []byte
	// Of type 0xDA7A: encoded Extensions, and a PKCS #8 key.
	Metadata []byte
	Key      []byte
}

type answer struct {
	ID       int      `json:"id"`
	Body     []byte   `json:"body,omitempty"`
	Tokens   [][]byte `json:"tokens,omitempty"`
	TokenKey []byte   `json:"tokenKey,omitempty"`
	Valid    bool     `json:"valid"`
	Error    string   `json:"error,omitempty"`
}

type pending struct {
	tokenType uint16
	inputs    [][]byte
	count     int
	rsaClient blindrsa.Client
	rsaState  blindrsa.State
	client    oprf.VerifiableClient
	finalize  *oprf.FinalizeData
}

type issuerKey struct {
	tokenType uint16
	tokenKey  []byte
	rsaKey    *rsa.PrivateKey
	server    oprf.VerifiableServer
}

var pendings = map[int]pending{}
var issuers = map[int]issuerKey{}
var next = 0

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<22)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var c command
		result := answer{}
		err := json.Unmarshal(lines.Bytes(), &c)
		if err == nil {
			result, err = run(c)
		}
		if err != nil {
			result = answer{Error: err.Error()}
		}
		if out.Encode(result) != nil {
			return
		}
	}
}

func run(c command) (answer, error) {
	switch c.Op {
	case "request":
		return request(c)
	case "finish":
		return finish(c)
	case "issuer":
		return newIssuer(c)
	case "issue":
		return issue(c)
	case "verify":
		return verify(c)
	}
	return runWithMetadata(c)
}

func suiteOf(tokenType uint16) oprf.Suite {
	if tokenType == 1 {
		return oprf.SuiteP384
	}
	return oprf.SuiteRistretto255
}

func tokenKeyID(tokenKey []byte) []byte {
	h := crypto.SHA256.New()
	h.Write(tokenKey)
	return h.Sum(nil)
}

// token_type, nonce, challenge_digest, token_key_id (RFC 9578, sections 5.1 and 6.1).
func tokenInput(c command) []byte {
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		panic(err)
	}
	input := binary.BigEndian.AppendUint16(nil, c.TokenType)
	input = append(input, nonce...)
	input = append(input, c.Digest...)
	return append(input, tokenKeyID(c.TokenKey)...)
}

func request(c command) (answer, error) {
	p := pending{tokenType: c.TokenType, count: c.Count}
	for range c.Count {
		p.inputs = append(p.inputs, tokenInput(c))
	}
	head := binary.BigEndian.AppendUint16(nil, c.TokenType)
	head = append(head, tokenKeyID(c.TokenKey)[31])
	blinded, err := blind(c, &p)
	if err != nil {
		return answer{}, err
	}
	if c.Count > 1 {
		head = appendVarint(head, len(blinded))
	}
	next++
	pendings[next] = p
	return answer{ID: next, Body: append(head, blinded...)}, nil
}

func blind(c command, p *pending) ([]byte, error) {
	if c.TokenType == 2 {
		key, err := parseTokenKey(c.TokenKey)
		if err != nil {
			return nil, err
		}
		if p.rsaClient, err = blindrsa.NewClient(blindrsa.SHA384PSSDeterministic, key); err != nil {
			return nil, err
		}
		var message []byte
		message, p.rsaState, err = p.rsaClient.Blind(rand.Reader, p.inputs[0])
		return message, err
	}
	var key oprf.PublicKey
	if err := key.UnmarshalBinary(suiteOf(c.TokenType), c.TokenKey); err != nil {
		return nil, err
	}
	p.client = oprf.NewVerifiableClient(suiteOf(c.TokenType), &key)
	data, evaluation, err := p.client.Blind(p.inputs)
	if err != nil {
		return nil, err
	}
	p.finalize = data
	return marshalElements(evaluation.Elements)
}

func finish(c command) (answer, error) {
	p, ok := pendings[c.ID]
	if !ok {
		return answer{}, errors.New("no such request")
	}
	if p.tokenType == 2 {
		signature, err := p.rsaClient.Finalize(p.rsaState, c.Body)
		if err != nil {
			return answer{}, err
		}
		return answer{Tokens: [][]byte{append(p.inputs[0], signature...)}}, nil
	}
	body := c.Body
	if p.count > 1 {
		length, used, err := readVarint(body)
		if err != nil || len(body) < used+length {
			return answer{}, errors.New("the response is cut")
		}
		body = body[used:]
	}
	evaluation, err := parseEvaluation(p.tokenType, p.count, body)
	if err != nil {
		return answer{}, err
	}
	outputs, err := p.client.Finalize(p.finalize, evaluation)
	if err != nil {
		return answer{}, err
	}
	result := answer{}
	for i, output := range outputs {
		result.Tokens = append(result.Tokens, append(p.inputs[i], output...))
	}
	return result, nil
}

func newIssuer(c command) (answer, error) {
	k := issuerKey{tokenType: c.TokenType}
	if c.TokenType == 2 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return answer{}, err
		}
		k.rsaKey = key
		if k.tokenKey, err = encodeTokenKey(&key.PublicKey); err != nil {
			return answer{}, err
		}
	} else {
		key, err := oprf.GenerateKey(suiteOf(c.TokenType), rand.Reader)
		if err != nil {
			return answer{}, err
		}
		k.server = oprf.NewVerifiableServer(suiteOf(c.TokenType), key)
		if k.tokenKey, err = key.Public().MarshalBinary(); err != nil {
			return answer{}, err
		}
	}
	next++
	issuers[next] = k
	return answer{ID: next, TokenKey: k.tokenKey}, nil
}

func issue(c command) (answer, error) {
	k, ok := issuers[c.ID]
	if !ok {
		return answer{}, errors.New("no such issuer")
	}
	head := binary.BigEndian.AppendUint16(nil, k.tokenType)
	head = append(head, tokenKeyID(k.tokenKey)[31])
	if !bytes.HasPrefix(c.Body, head) {
		return answer{}, errors.New("another type or key")
	}
	body := c.Body[len(head):]
	if k.tokenType == 2 {
		signature, err := blindrsa.NewSigner(k.rsaKey).BlindSign(body)
		return answer{Body: signature}, err
	}
	size := int(suiteOf(k.tokenType).Group().Params().CompressedElementLength)
	isBatch := len(body) != size
	if isBatch {
		length, used, err := readVarint(body)
		if err != nil || len(body) != used+length || length%size != 0 {
			return answer{}, errors.New("the request is malformed")
		}
		body = body[used:]
	}
	elements, err := parseElements(k.tokenType, body)
	if err != nil {
		return answer{}, err
	}
	evaluation, err := k.server.Evaluate(&oprf.EvaluationRequest{Elements: elements})
	if err != nil {
		return answer{}, err
	}
	evaluated, err := marshalElements(evaluation.Elements)
	if err != nil {
		return answer{}, err
	}
	proof, err := evaluation.Proof.MarshalBinary()
	if err != nil {
		return answer{}, err
	}
	var response []byte
	if isBatch {
		response = appendVarint(response, len(evaluated))
	}
	return answer{Body: append(append(response, evaluated...), proof...)}, nil
}

func verify(c command) (answer, error) {
	k, ok := issuers[c.ID]
	if !ok || len(c.Body) < 98 {
		return answer{}, errors.New("no such issuer, or no token")
	}
	input, authenticator := c.Body[:98], c.Body[98:]
	if k.tokenType != 2 {
		return answer{Valid: k.server.VerifyFinalize(input, authenticator)}, nil
	}
	verifier, err := blindrsa.NewVerifier(blindrsa.SHA384PSSDeterministic, &k.rsaKey.PublicKey)
	if err != nil {
		return answer{}, err
	}
	return answer{Valid: verifier.Verify(input, authenticator) == nil}, nil
}

func marshalElements(elements []group.Element) ([]byte, error) {
	var joined []byte
	for _, element := range elements {
		encoded, err := element.MarshalBinaryCompress()
		if err != nil {
			return nil, err
		}
		joined = append(joined, encoded...)
	}
	return joined, nil
}

func parseElements(tokenType uint16, joined []byte) ([]group.Element, error) {
	g := suiteOf(tokenType).Group()
	size := int(g.Params().CompressedElementLength)
	var elements []group.Element
	for at := 0; at+size <= len(joined); at += size {
		element := g.NewElement()
		if err := element.UnmarshalBinary(joined[at : at+size]); err != nil {
			return nil, err
		}
		elements = append(elements, element)
	}
	return elements, nil
}

func parseEvaluation(tokenType uint16, count int, body []byte) (*oprf.Evaluation, error) {
	g := suiteOf(tokenType).Group()
	size := count * int(g.Params().CompressedElementLength)
	if len(body) != size+2*int(g.Params().ScalarLength) {
		return nil, fmt.Errorf("a response of %d bytes", len(body))
	}
	elements, err := parseElements(tokenType, body[:size])
	if err != nil {
		return nil, err
	}
	proof := new(dleq.Proof)
	if err := proof.UnmarshalBinary(g, body[size:]); err != nil {
		return nil, err
	}
	return &oprf.Evaluation{Elements: elements, Proof: proof}, nil
}

// RFC 9000, section 16, as far as these messages need it.
func appendVarint(to []byte, value int) []byte {
	if value < 64 {
		return append(to, byte(value))
	}
	if value < 16384 {
		return binary.BigEndian.AppendUint16(to, uint16(value)|0x4000)
	}
	return binary.BigEndian.AppendUint32(to, uint32(value)|0x8000_0000)
}

func readVarint(from []byte) (value int, used int, err error) {
	if len(from) == 0 || len(from) < 1<<(from[0]>>6) || from[0]>>6 == 3 {
		return 0, 0, errors.New("no length")
	}
	used = 1 << (from[0] >> 6)
	value = int(from[0] & 0x3f)
	for _, octet := range from[1:used] {
		value = value<<8 | int(octet)
	}
	return value, used, nil
}

// id-RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes (RFC 9578, section 6.5).
var pssAlgorithm = []byte{
	0x30, 0x3d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a, 0x30, 0x30, 0xa0, 0x0d, 0x30,
	0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0xa1, 0x1a, 0x30, 0x18, 0x06, 0x09,
	0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65,
	0x03, 0x04, 0x02, 0x02, 0xa2, 0x03, 0x02, 0x01, 0x30,
}

type subjectPublicKeyInfo struct {
	Algorithm asn1.RawValue
	PublicKey asn1.BitString
}

func parseTokenKey(der []byte) (*rsa.PublicKey, error) {
	var info subjectPublicKeyInfo
	rest, err := asn1.Unmarshal(der, &info)
	if err != nil || len(rest) != 0 || !bytes.Equal(info.Algorithm.FullBytes, pssAlgorithm) {
		return nil, errors.New("the token key is not in the encoding of RFC 9578")
	}
	return x509.ParsePKCS1PublicKey(info.PublicKey.Bytes)
}

func encodeTokenKey(key *rsa.PublicKey) ([]byte, error) {
	bits := x509.MarshalPKCS1PublicKey(key)
	return asn1.Marshal(subjectPublicKeyInfo{
		Algorithm: asn1.RawValue{FullBytes: pssAlgorithm},
		PublicKey: asn1.BitString{Bytes: bits, BitLength: 8 * len(bits)},
	})
}
