package dburl

import (
	"net/url"
	"regexp"
	"strings"
)

var (
	urlPassword     = regexp.MustCompile(`(://[^:/@\s]*:)[^@\s]+@`)
	settingPassword = regexp.MustCompile(`(?i)\b((?:pg|ssl)?(?:password|passwd|pwd)=)("[^"]*"|'[^']*'|[^\s&"']+)`)
	ordinary        = regexp.MustCompile(`^([a-z]{1,12}|.{1,3})$`)
)

// Redact returns text without the password in address, however it is written. A password that is an ordinary word is taken
// out only if it is in quotes or after a colon or an equals sign, so that no sentence with that word becomes unreadable.
func Redact(text, address string) string {
	text = urlPassword.ReplaceAllString(text, "${1}*****@")
	text = settingPassword.ReplaceAllString(text, "${1}*****")
	var secrets []string
	if t, err := Parse(address); err == nil {
		for _, secret := range []string{t.Password, t.Settings["sslpassword"]} {
			if secret != t.User && secret != t.Database {
				secrets = append(secrets, secret, url.QueryEscape(secret), url.PathEscape(secret))
			}
		}
	}
	// As it was typed: up to the last @, and in the settings.
	if _, rest, found := strings.Cut(address, "://"); found {
		if at := strings.LastIndex(rest, "@"); at > 0 {
			name, password, _ := strings.Cut(rest[:at], ":")
			if password != name {
				secrets = append(secrets, password)
			}
		}
	}
	for _, match := range settingPassword.FindAllStringSubmatch(address, -1) {
		secrets = append(secrets, strings.Trim(match[2], `"'`))
	}
	for _, secret := range secrets {
		if ordinary.MatchString(secret) {
			quoted := regexp.MustCompile("([\"'`=:])" + regexp.QuoteMeta(secret) + "([\"'`@&]|$)")
			text = quoted.ReplaceAllString(text, "${1}*****${2}")
		} else if secret != "" {
			text = strings.ReplaceAll(text, secret, "*****")
		}
	}
	return text
}
